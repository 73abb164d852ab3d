package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// file is tokenizer.json. Truncation and padding are left out on purpose.
type file struct {
	Version       *string      `json:"version"`
	AddedTokens   []addedToken `json:"added_tokens"`
	Normalizer    *component   `json:"normalizer"`
	PreTokenizer  *component   `json:"pre_tokenizer"`
	PostProcessor *component   `json:"post_processor"`
	Decoder       *component   `json:"decoder"`
	Model         modelFile    `json:"model"`
}

type modelFile struct {
	Type                    string           `json:"type"`
	Vocab                   map[string]int64 `json:"vocab"`
	Merges                  mergeList        `json:"merges"`
	Dropout                 *float64         `json:"dropout"`
	UnkToken                *string          `json:"unk_token"`
	ContinuingSubwordPrefix *string          `json:"continuing_subword_prefix"`
	EndOfWordSuffix         *string          `json:"end_of_word_suffix"`
	FuseUnk                 bool             `json:"fuse_unk"`
	ByteFallback            bool             `json:"byte_fallback"`
	IgnoreMerges            bool             `json:"ignore_merges"`
}

// addedToken is a literal that is found in text before anything else.
type addedToken struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"` // only where no word touches it
	LStrip     bool   `json:"lstrip"`      // takes the white space before it along
	RStrip     bool   `json:"rstrip"`      // and after it
	Normalized bool   `json:"normalized"`  // searched in normalized text
	Special    bool   `json:"special"`     // may be skipped when decoding
}

// component is the union of all normalizers, pre-tokenizers, post-processors
// and decoders, so that one pass over the JSON reads them at any depth.
type component struct {
	Type string `json:"type"`

	Pattern *struct {
		String *string
		Regex  *string
	} `json:"pattern"`
	Content  string `json:"content"`
	Behavior string `json:"behavior"`
	Invert   bool   `json:"invert"`

	Prepend    string `json:"prepend"`
	StripLeft  bool   `json:"strip_left"`
	StripRight bool   `json:"strip_right"`
	Start      int    `json:"start"`
	Stop       int    `json:"stop"`

	AddPrefixSpace   *bool   `json:"add_prefix_space"`
	UseRegex         *bool   `json:"use_regex"`
	Replacement      string  `json:"replacement"`
	PrependScheme    *string `json:"prepend_scheme"`
	Split            *bool   `json:"split"`
	IndividualDigits bool    `json:"individual_digits"`

	Single []struct {
		SpecialToken *struct {
			ID string `json:"id"`
		}
		Sequence *struct {
			ID string `json:"id"`
		}
	} `json:"single"`
	SpecialTokens map[string]struct {
		IDs []int64 `json:"ids"`
	} `json:"special_tokens"`

	Normalizers   []component `json:"normalizers"`
	Pretokenizers []component `json:"pretokenizers"`
	Processors    []component `json:"processors"`
	Decoders      []component `json:"decoders"`
}

// placed is a component with the place where the file has it.
type placed struct {
	*component
	place string
}

// Sequences are flattened; real files nest them once.
const (
	maxDepth      = 16
	maxComponents = 64
)

// flatten lists the components of c in order, sequences taken apart by kids.
func flatten(place string, c *component, list string, kids func(*component) []component) ([]placed, error) {
	if c == nil {
		return nil, nil
	}
	var all []placed
	var walk func(place string, c *component, depth int) error
	walk = func(place string, c *component, depth int) error {
		if c.Type != "Sequence" {
			all = append(all, placed{c, place})
			if len(all) > maxComponents {
				return fmt.Errorf("%s: more than %d components", place, maxComponents)
			}
			return nil
		}
		if depth == maxDepth {
			return fmt.Errorf("%s: sequences nested more than %d deep", place, maxDepth)
		}
		for i := range kids(c) {
			if err := walk(fmt.Sprintf("%s.%s[%d]", place, list, i), &kids(c)[i], depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	err := walk(place, c, 0)
	return all, err
}

// unknown is the error for a component that this package does not have.
func (p placed) unknown(kind, have string) error {
	if p.Type == "" {
		return fmt.Errorf("%s: the %s has no type", p.place, kind)
	}
	return fmt.Errorf("%s: %s %q is not implemented (there are %s)", p.place, kind, p.Type, have)
}

// mergeList holds the pairs to be joined, the most urgent first. The file has
// them as ["a", "b"] or, up to 2024, as "a b".
type mergeList [][]string

func (m *mergeList) UnmarshalJSON(b []byte) error {
	head := bytes.TrimLeft(b, "[ \t\r\n")
	if len(head) == 0 || head[0] != '"' || bytes.HasPrefix(b, []byte("[[")) {
		return json.Unmarshal(b, (*[][]string)(m))
	}
	var joined []string
	if err := json.Unmarshal(b, &joined); err != nil {
		// A list that begins with a space-separated string may still hold pairs.
		return json.Unmarshal(b, (*[][]string)(m))
	}
	*m = make(mergeList, 0, len(joined))
	for _, s := range joined {
		// merges.txt begins with such a line, and some converters kept it.
		if !strings.HasPrefix(s, "#version") {
			*m = append(*m, cutMerge(s))
		}
	}
	return nil
}

// cutMerge splits "a b" at its only space; anything else gives no pair, which
// the model reports with its index.
func cutMerge(s string) []string {
	if a, b, ok := bytes.Cut([]byte(s), []byte(" ")); ok && !bytes.Contains(b, []byte(" ")) {
		return []string{string(a), string(b)}
	}
	return []string{s}
}

// readFile decodes tokenizer.json.
func readFile(b []byte) (*file, error) {
	var f file
	err := json.Unmarshal(b, &f)
	// A type that is not implemented explains fields of unexpected types, so it
	// is looked at first. The decoder goes on after a mistyped field.
	if t := f.Model.Type; t != "" && t != "BPE" {
		return nil, fmt.Errorf("model.type: %q is not implemented (there is BPE)", t)
	}
	if err != nil {
		return nil, explain(err)
	}
	if f.Version != nil && *f.Version != "1.0" {
		return nil, fmt.Errorf("version: %q is not implemented (there is \"1.0\")", *f.Version)
	}
	return &f, nil
}

// explain gives JSON errors their place.
func explain(err error) error {
	var mistyped *json.UnmarshalTypeError
	var malformed *json.SyntaxError
	switch {
	case errors.As(err, &mistyped):
		where := "not a tokenizer"
		if mistyped.Field != "" {
			where = mistyped.Field
		}
		return fmt.Errorf("%s: want %s, found %s (byte %d)", where, jsonName(mistyped.Type), mistyped.Value, mistyped.Offset)
	case errors.As(err, &malformed):
		return fmt.Errorf("not valid JSON at byte %d: %w", malformed.Offset, err)
	}
	return fmt.Errorf("not a tokenizer: %w", err)
}

// jsonName says in JSON's words what a type is read from.
func jsonName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return jsonName(t.Elem())
	case reflect.Struct, reflect.Map:
		return "object"
	case reflect.Slice:
		return "array"
	case reflect.Int, reflect.Int64, reflect.Float64:
		return "number"
	}
	return t.Kind().String()
}
