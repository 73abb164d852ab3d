package lora

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"

	"graft/internal/strictjson"
)

// Pattern holds values for some modules. The first rule that matches counts, so
// the order is that of the file, which a map would lose.
type Pattern[T any] []Rule[T]

// Rule is one entry of a Pattern. Modules is a regular expression for the end of
// a module's path.
type Rule[T any] struct {
	Modules string
	Value   T
}

// UnmarshalJSON reads an object whose keys are the modules.
func (p *Pattern[T]) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	d, err := strictjson.NewDecoder(b)
	if err != nil {
		return err
	}
	err = strictjson.Object(d, func(key string) error {
		r := Rule[T]{Modules: key}
		err := d.Decode(&r.Value)
		*p = append(*p, r)
		return err
	})
	if err != nil {
		return fmt.Errorf("rank_pattern or alpha_pattern: %w", err)
	}
	return nil
}

// MarshalJSON writes what UnmarshalJSON reads.
func (p Pattern[T]) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	for i, r := range p {
		key, err := json.Marshal(r.Modules)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(r.Value)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s:%s", key, value)
	}
	return fmt.Appendf(nil, "{%s}", b.Bytes()), nil
}

// picker returns a function that looks a module up.
func (p Pattern[T]) picker() (func(module string, otherwise T) T, error) {
	var res []*regexp.Regexp
	for _, r := range p {
		re, err := compile(`^(?:.*\.)?(?:`, r.Modules, ")$")
		if err != nil {
			return nil, err
		}
		res = append(res, re)
	}
	return func(module string, otherwise T) T {
		for i, re := range res {
			if re.MatchString(module) {
				return p[i].Value
			}
		}
		return otherwise
	}, nil
}
