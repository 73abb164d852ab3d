package configs

import (
	"fmt"
	"reflect"
	"strings"

	"gopkg.in/yaml.v3"
)

// Key is one setting.
type Key struct {
	Name    string // "lora.rank"
	Type    string // "number", for people
	Default string // as YAML
	Help    string

	harmless string
	index    [][]int // of the field, level by level
}

// Keys lists all settings in order.
func Keys() []Key {
	d := Defaults()
	keys := fields(reflect.TypeFor[Config](), "", nil)
	for i := range keys {
		keys[i].Default = inline(keys[i].field(&d).Interface())
	}
	return keys
}

func fields(t reflect.Type, prefix string, index [][]int) []Key {
	var out []Key
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		at := append(append([][]int(nil), index...), f.Index)
		help, leaf := f.Tag.Lookup("help")
		if !leaf {
			out = append(out, fields(f.Type, prefix+name+".", at)...)
			continue
		}
		out = append(out, Key{Name: prefix + name, Type: typeName(f.Type), Help: help, harmless: f.Tag.Get("harmless"), index: at})
	}
	return out
}

func typeName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[string]():
		return "text"
	case reflect.TypeFor[bool]():
		return "true/false"
	case reflect.TypeFor[int](), reflect.TypeFor[uint64]():
		return "whole number"
	case reflect.TypeFor[float64]():
		return "number"
	case reflect.TypeFor[[]float64]():
		return "numbers"
	case reflect.TypeFor[[]string]():
		return "texts"
	case reflect.TypeFor[Targets]():
		return "text or list"
	case reflect.TypeFor[Layers]():
		return "all, number or list"
	case reflect.TypeFor[Warmup]():
		return "number or %"
	}
	panic("configs: no name for " + t.String())
}

// field returns the key's field of a config.
func (k Key) field(c *Config) reflect.Value {
	v := reflect.ValueOf(c).Elem()
	for _, i := range k.index {
		v = v.FieldByIndex(i)
	}
	return v
}

// words says whether the key's values are texts, so that on a command line they
// need no quotes.
func (k Key) words() bool {
	if k.index == nil {
		return false
	}
	var c Config
	switch k.field(&c).Interface().(type) {
	case string, Targets:
		return true
	}
	return false
}

// decode reads a YAML node as a value of the key's type, strictly.
func (k Key) decode(n *yaml.Node) (any, error) {
	var c Config
	f := k.field(&c)
	if d, ok := f.Addr().Interface().(decoder); ok {
		err := d.decode(n)
		return f.Interface(), err
	}
	switch f.Interface().(type) {
	case string:
		return decodeString(n)
	case bool:
		return decodeBool(n)
	case int:
		i, err := decodeInt(n)
		return int(i), err
	case uint64:
		return decodeUint(n)
	case float64:
		return decodeFloat(n)
	case []string:
		return decodeStrings(n)
	case []float64:
		if n.Kind != yaml.SequenceNode {
			return nil, fmt.Errorf("%s, want a list of numbers", describe(n))
		}
		var out []float64
		for _, e := range n.Content {
			v, err := decodeFloat(e)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	}
	panic("configs: cannot decode " + f.Type().String())
}

// Change is a key with another value than before.
type Change struct {
	Key, Old, New string
	Harmless      bool
	Reason        string // why it is not
}

// Diff lists the keys whose values differ, and says whether a run may be
// resumed with the new ones.
func Diff(old, new *Config) []Change {
	var out []Change
	for _, k := range fields(reflect.TypeFor[Config](), "", nil) {
		a, b := k.field(old).Interface(), k.field(new).Interface()
		if reflect.DeepEqual(a, b) {
			continue
		}
		c := Change{Key: k.Name, Old: inline(a), New: inline(b), Harmless: k.harmless == "yes",
			Reason: "a resumed run would not compute what it was computing; start a new run (another -out)"}
		if k.harmless == "steps" {
			c.Harmless = new.Optimizer.Schedule == "constant" && new.Optimizer.Warmup.Fraction == 0
			c.Reason = fmt.Sprintf("the learning rate of every step depends on the number of steps (optimizer.schedule is %s, warmup %s)",
				new.Optimizer.Schedule, inline(new.Optimizer.Warmup))
		}
		out = append(out, c)
	}
	return out
}

func inline(v any) string {
	var n yaml.Node
	if err := n.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	n.Style = yaml.FlowStyle
	b, err := yaml.Marshal(&n)
	if err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSpace(string(b))
}

// YAML returns the configuration as a file that Parse reads back.
func (c *Config) YAML() []byte {
	b, err := yaml.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("configs: %v", err))
	}
	return b
}

// nearest returns the candidate with the fewest edits to s, "" when none is
// near.
func nearest(s string, candidates []string) string {
	best, least := "", max(2, len(s)/3)+1
	for _, c := range candidates {
		if d := edits(s, c); d < least {
			best, least = c, d
		}
	}
	return best
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func suggest(near string) string {
	if near == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", near)
}

func join(words []string) string { return strings.Join(words, ", ") }
