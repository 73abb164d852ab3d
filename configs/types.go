package configs

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Targets says which layers get adapters: names, or one pattern.
type Targets struct {
	Names   []string
	Pattern string // all-linear, or a regular expression
}

func (t *Targets) decode(n *yaml.Node) error {
	if n.Kind == yaml.SequenceNode {
		var err error
		*t = Targets{}
		t.Names, err = decodeStrings(n)
		return err
	}
	s, err := decodeString(n)
	if err != nil {
		return fmt.Errorf("%w, or a list of them", err)
	}
	*t = Targets{Pattern: s}
	return nil
}

// MarshalYAML writes what decode reads.
func (t Targets) MarshalYAML() (any, error) {
	if t.Pattern != "" {
		return t.Pattern, nil
	}
	return t.Names, nil
}

// Layers says which layers get adapters: all, the last few, or a list.
type Layers struct {
	Last int   // 0: not by number
	List []int // empty: all, or the last few
}

func (l *Layers) decode(n *yaml.Node) error {
	*l = Layers{}
	switch {
	case n.Kind == yaml.SequenceNode:
		for _, e := range n.Content {
			i, err := decodeInt(e)
			if err != nil {
				return err
			}
			if i < 0 || i > math.MaxInt32 {
				return fmt.Errorf("layer %d", i)
			}
			if slices.Contains(l.List, int(i)) {
				return fmt.Errorf("layer %d is listed twice", i)
			}
			l.List = append(l.List, int(i))
		}
		return nil
	case n.Kind == yaml.ScalarNode && n.Value == "all":
		return nil
	}
	i, err := decodeInt(n)
	if err != nil || i < 1 || i > math.MaxInt32 {
		return fmt.Errorf("%s: want all, the number of last layers, or a list of layers", describe(n))
	}
	l.Last = int(i)
	return nil
}

// MarshalYAML writes what decode reads.
func (l Layers) MarshalYAML() (any, error) {
	switch {
	case l.Last > 0:
		return l.Last, nil
	case len(l.List) > 0:
		return l.List, nil
	}
	return "all", nil
}

// Resolve returns the layers of a model that has n; none means all.
func (l Layers) Resolve(n int) []int {
	if l.Last == 0 {
		return l.List
	}
	var out []int
	for i := max(0, n-l.Last); i < n; i++ {
		out = append(out, i)
	}
	return out
}

// Warmup is a number of steps or a fraction of all.
type Warmup struct {
	Count    int
	Fraction float64 // 0: Count holds
}

func (w *Warmup) decode(n *yaml.Node) error {
	*w = Warmup{}
	if i, err := decodeInt(n); err == nil {
		if i < 0 || i > maxSteps {
			return fmt.Errorf("%d steps, want 0 to %d", i, maxSteps)
		}
		w.Count = int(i)
		return nil
	}
	text, percent := strings.CutSuffix(n.Value, "%")
	f, err := strconv.ParseFloat(text, 64)
	if percent {
		f /= 100
	}
	if n.Kind != yaml.ScalarNode || err != nil || !(f >= 0 && f < 1) {
		return fmt.Errorf("%s: want steps, or a fraction of them below 1 (0.05 or 5%%)", describe(n))
	}
	w.Fraction = f
	return nil
}

// MarshalYAML writes what decode reads.
func (w Warmup) MarshalYAML() (any, error) {
	if w.Fraction > 0 {
		return w.Fraction, nil
	}
	return w.Count, nil
}

// Steps returns the number of warmup steps of a run.
func (w Warmup) Steps(all int) int {
	if w.Fraction > 0 {
		return int(math.Ceil(w.Fraction * float64(all)))
	}
	return w.Count
}

// decoder is a type with a syntax of its own.
type decoder interface{ decode(n *yaml.Node) error }

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%.60q", n.Value)
}

func decodeString(n *yaml.Node) (string, error) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		return "", fmt.Errorf("%s, want a text (in quotes, if it looks like a number)", describe(n))
	}
	return n.Value, nil
}

func decodeStrings(n *yaml.Node) ([]string, error) {
	if n.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("%s, want a list of texts", describe(n))
	}
	var out []string
	for _, e := range n.Content {
		s, err := decodeString(e)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func decodeInt(n *yaml.Node) (int64, error) {
	i, err := strconv.ParseInt(n.Value, 10, 64)
	return i, wholeNumber(n, err)
}

func decodeUint(n *yaml.Node) (uint64, error) {
	if i, err := decodeInt(n); err == nil && i < 0 {
		return 0, fmt.Errorf("%d, want 0 or more", i)
	}
	u, err := strconv.ParseUint(n.Value, 10, 64)
	return u, wholeNumber(n, err)
}

// wholeNumber says what is wrong with a node that was parsed as a decimal number.
func wholeNumber(n *yaml.Node, err error) error {
	digits := strings.TrimLeft(n.Value, "+-")
	switch {
	case n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil && !errors.Is(err, strconv.ErrRange):
		return fmt.Errorf("%s, want a whole number", describe(n))
	case err != nil:
		return fmt.Errorf("%s is out of range", describe(n))
	case len(digits) > 1 && digits[0] == '0': // 010 is 8 to some readers of YAML, 10 to others
		return fmt.Errorf("%s starts with 0, want a decimal number", describe(n))
	}
	return nil
}

func decodeFloat(n *yaml.Node) (float64, error) {
	if tag := n.ShortTag(); n.Kind == yaml.ScalarNode && (tag == "!!int" || tag == "!!float") {
		if f, err := strconv.ParseFloat(n.Value, 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f, nil
		}
	}
	return 0, fmt.Errorf("%s, want a number", describe(n))
}

func decodeBool(n *yaml.Node) (bool, error) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool" {
		return n.Value == "true" || n.Value == "True" || n.Value == "TRUE", nil
	}
	return false, fmt.Errorf("%s, want true or false", describe(n))
}
