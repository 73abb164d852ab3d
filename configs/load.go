package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"strings"
	"unicode"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
	"gopkg.in/yaml.v3"

	"graft/internal/files"
)

// maxFile bounds a config file.
const maxFile = 1 << 20

// envPrefix starts the names of environment variables that set keys.
const envPrefix = "TRAIN_"

// Load reads the config file at path and puts environment and -set values
// ("key=value") over it. Its error lists everything that is wrong.
func Load(path string, sets, env []string) (*Config, error) {
	b, err := files.Read(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	base := filepath.Base(path)
	out := filepath.Join("runs", strings.TrimSuffix(base, filepath.Ext(base)))
	return load(path, out, b, sets, env)
}

// Parse reads the bytes of a config file, such as YAML returned, without
// anything over it.
func Parse(b []byte) (*Config, error) { return load("config", "runs/config", b, nil, nil) }

func load(name, out string, b []byte, sets, env []string) (*Config, error) {
	l := newLoader()
	l.v.SetDefault("out", out)
	if !l.file(name, b) {
		return nil, errors.Join(l.errs...)
	}
	l.layer++
	l.environment(env)
	l.layer++
	l.flags(sets)
	l.length()
	var c Config
	if err := l.v.UnmarshalExact(&c, viper.DecodeHook(nil), func(d *mapstructure.DecoderConfig) { d.TagName = "yaml" }); err != nil {
		l.fail("%s: %w", name, err)
	} else {
		if c.Train.Steps > 0 {
			c.Train.Epochs = 0 // what is not used is not written down either
		}
		l.validate(name, &c)
		c.Out = filepath.Clean(c.Out) // by which the trainer knows a link, and names its neighbours
	}
	if len(l.errs) > maxErrors {
		l.errs = append(l.errs[:maxErrors], fmt.Errorf("%s: and %d more problems", name, len(l.errs)-maxErrors))
	}
	if len(l.errs) > 0 {
		return nil, errors.Join(l.errs...)
	}
	return &c, nil
}

// maxErrors bounds how much is said about one file.
const maxErrors = 20

// validate adds what is wrong with values, each with the place that the value
// came from. Keys that could not be decoded have been reported.
func (l *loader) validate(name string, c *Config) {
	for _, e := range c.problems() {
		key, _, _ := strings.Cut(e.key, "[")
		if l.failed[key] {
			continue
		}
		place := l.places[key]
		if place == "" {
			place = name
		}
		l.fail("%s: %s: %s", place, e.key, e.text)
	}
}

// loader merges the layers in viper, after strict decoding.
type loader struct {
	v    *viper.Viper
	keys map[string]Key
	list []string // names, in order
	errs []error

	places map[string]string // where the value of a key stands
	failed map[string]bool   // keys whose value could not be decoded
	values map[string]any    // the last value of each key that was set
	layer  int               // file, environment or flags
	layers map[string]int    // of the last value of each key
}

func newLoader() *loader {
	l := &loader{v: viper.New(), keys: map[string]Key{}, places: map[string]string{}, failed: map[string]bool{}, values: map[string]any{}, layers: map[string]int{}}
	d := Defaults()
	for _, k := range fields(reflect.TypeFor[Config](), "", nil) {
		l.keys[k.Name] = k
		l.list = append(l.list, k.Name)
		l.v.SetDefault(k.Name, k.field(&d).Interface())
	}
	return l
}

// fail adds a problem, in one line whatever the input holds.
func (l *loader) fail(format string, args ...any) {
	text := fmt.Errorf(format, args...).Error()
	l.errs = append(l.errs, errors.New(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)))
}

// file puts the keys of a YAML document into viper's config layer. Where there are none,
// there is nothing more to say.
func (l *loader) file(name string, b []byte) bool {
	var doc, second yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&doc); err != nil && err != io.EOF {
		l.fail("%s%s", name, yamlError(err))
		return false
	}
	if len(doc.Content) == 0 {
		l.fail("%s: the file is empty", name)
		return false
	}
	if err := d.Decode(&second); err != io.EOF {
		l.fail("%s: more than one document, or something after its end (---)", name)
	}
	values, root := map[string]any{}, doc.Content[0]
	l.mapping(name, "", root, values)
	if err := l.v.MergeConfigMap(values); err != nil {
		l.fail("%s: %v", name, err)
	}
	return root.Kind == yaml.MappingNode
}

// yamlError is yaml.v3's message as it follows the name of the file: "yaml: line
// 3: what" becomes ":3: what", the form of all messages here.
func yamlError(err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		return ":" + rest
	}
	return ": " + text
}

// mapping decodes the keys below prefix into values.
func (l *loader) mapping(name, prefix string, n *yaml.Node, values map[string]any) {
	if n.Kind != yaml.MappingNode {
		l.fail("%s:%d: %s%s, want keys with values", name, n.Line, sectionName(prefix), describe(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		full := prefix + k.Value
		if seen[k.Value] {
			l.fail("%s:%d: %s is set twice", name, k.Line, full)
			continue
		}
		seen[k.Value] = true
		if section, key, dotted := strings.Cut(k.Value, "."); dotted {
			l.fail("%s:%d: unknown key %q: write %s: {%s: …}", name, k.Line, full, section, key)
			continue
		}
		if v.Kind == yaml.AliasNode {
			l.fail("%s:%d: %s: aliases are not supported", name, v.Line, full)
			continue
		}
		if l.section(full) {
			if v.ShortTag() == "!!null" {
				continue // a section with nothing in it
			}
			inner := map[string]any{}
			values[k.Value] = inner
			l.mapping(name, full+".", v, inner)
			continue
		}
		l.places[full] = fmt.Sprintf("%s:%d", name, k.Line)
		if value, err := l.value(full, v); err != nil {
			l.failed[full] = true
			l.fail("%s:%d: %w", name, k.Line, err)
		} else {
			values[k.Value] = value
		}
	}
}

// length settles how long a run is, where both keys for it are set: the later layer wins,
// and one layer cannot set both. 0 leaves it to the other key.
func (l *loader) length() {
	steps, epochs := l.values["train.steps"], l.values["train.epochs"]
	if steps == nil || epochs == nil || steps == 0 || epochs == 0.0 {
		return
	}
	switch a, b := l.layers["train.steps"], l.layers["train.epochs"]; {
	case a == b:
		l.fail("%s: train.steps and train.epochs are both set: the length of a run is one or the other", l.places["train.epochs"])
	case a < b:
		l.v.Set("train.steps", 0)
	}
}

func sectionName(prefix string) string {
	if prefix == "" {
		return "the file is "
	}
	return strings.TrimSuffix(prefix, ".") + " is "
}

// section says whether name is that of a group of keys.
func (l *loader) section(name string) bool {
	for _, k := range l.list {
		if strings.HasPrefix(k, name+".") {
			return true
		}
	}
	return false
}

// value decodes the value of one key.
func (l *loader) value(name string, n *yaml.Node) (any, error) {
	k, ok := l.keys[name]
	if !ok {
		return nil, fmt.Errorf("unknown key %s%s", name, suggest(l.near(name)))
	}
	v, err := k.decode(n)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	l.values[name], l.layers[name] = v, l.layer
	return v, nil
}

// near finds the key that was meant: by all its name, or by its last part
// alone, which may stand in the wrong section.
func (l *loader) near(name string) string {
	last := name[strings.LastIndexByte(name, '.')+1:]
	for _, k := range l.list {
		if k[strings.LastIndexByte(k, '.')+1:] == last {
			return k
		}
	}
	return nearest(name, l.list)
}

// environment sets keys from TRAIN_ variables, as a layer over the file.
func (l *loader) environment(env []string) {
	names := map[string]string{}
	var list []string
	for _, k := range l.list {
		n := envPrefix + strings.ToUpper(strings.ReplaceAll(k, ".", "_"))
		names[n] = k
		list = append(list, n)
	}
	for _, e := range env {
		name, text, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		key, ok := names[name]
		if !ok {
			l.fail("environment: unknown variable %s%s", name, suggest(nearest(name, list)))
			continue
		}
		l.text("environment: "+name, key, text)
	}
}

// flags sets keys from "key=value".
func (l *loader) flags(sets []string) {
	for _, s := range sets {
		key, text, ok := strings.Cut(s, "=")
		if !ok {
			l.fail("-set %s: want key=value", s)
			continue
		}
		l.text("-set "+s, strings.TrimSpace(key), text)
	}
}

// text sets a key from YAML in one line. Later calls win.
func (l *loader) text(place, key, text string) {
	var doc yaml.Node
	if k := l.keys[key]; k.words() && !strings.HasPrefix(text, "[") && !strings.HasPrefix(text, "\"") {
		doc.Content = []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}}
	} else if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		l.fail("%s: %s", place, strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str"}
	if len(doc.Content) > 0 {
		n = doc.Content[0]
	}
	l.places[key] = place
	v, err := l.value(key, n)
	if err != nil {
		l.failed[key] = true
		l.fail("%s: %w", place, err)
		return
	}
	delete(l.failed, key)
	l.v.Set(key, v)
}
