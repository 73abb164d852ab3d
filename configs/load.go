package configs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
	"gopkg.in/yaml.v3"
)

// maxFile bounds a config file.
const maxFile = 1 << 20

// envPrefix starts the names of environment variables that set keys.
const envPrefix = "TRAIN_"

// Load reads the config file at path and puts environment and -set values
// ("key=value") over it. Its error lists everything that is wrong.
func Load(path string, sets, env []string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: over %d bytes, not a config", path, maxFile)
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
	l.file(name, b)
	l.environment(env)
	l.flags(sets)
	if len(l.errs) > 0 {
		return nil, errors.Join(l.errs...)
	}
	var c Config
	if err := l.v.UnmarshalExact(&c, viper.DecodeHook(nil), func(d *mapstructure.DecoderConfig) { d.TagName = "yaml" }); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := c.Validate(); err != nil {
		return nil, prefix(name, err)
	}
	return &c, nil
}

// prefix puts the file's name before each line of an error.
func prefix(name string, err error) error {
	var errs []error
	for line := range strings.Lines(err.Error()) {
		errs = append(errs, fmt.Errorf("%s: %s", name, strings.TrimRight(line, "\n")))
	}
	return errors.Join(errs...)
}

// loader merges the layers in viper, after strict decoding.
type loader struct {
	v    *viper.Viper
	keys map[string]Key
	list []string // names, in order
	errs []error
}

func newLoader() *loader {
	l := &loader{v: viper.New(), keys: map[string]Key{}}
	d := Defaults()
	for _, k := range fields(reflect.TypeFor[Config](), "", nil) {
		l.keys[k.Name] = k
		l.list = append(l.list, k.Name)
		l.v.SetDefault(k.Name, k.field(&d).Interface())
	}
	return l
}

func (l *loader) fail(format string, args ...any) {
	l.errs = append(l.errs, fmt.Errorf(format, args...))
}

// file puts the keys of a YAML document into viper's config layer.
func (l *loader) file(name string, b []byte) {
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		l.fail("%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	if len(doc.Content) == 0 {
		l.fail("%s: the file is empty", name)
		return
	}
	values := map[string]any{}
	l.mapping(name, "", doc.Content[0], values)
	if err := l.v.MergeConfigMap(values); err != nil {
		l.fail("%s: %v", name, err)
	}
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
		if value, err := l.value(full, v); err != nil {
			l.fail("%s:%d: %w", name, k.Line, err)
		} else {
			values[k.Value] = value
		}
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
	return v, nil
}

// near finds the key that was meant: by all its name, or by its last part
// alone, which may stand in the wrong section.
func (l *loader) near(name string) string {
	if near := nearest(name, l.list); near != "" {
		return near
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	for _, k := range l.list {
		if k[strings.LastIndexByte(k, '.')+1:] == last {
			return k
		}
	}
	return ""
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
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		l.fail("%s: %s", place, strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str"}
	if len(doc.Content) > 0 {
		n = doc.Content[0]
	}
	v, err := l.value(key, n)
	if err != nil {
		l.fail("%s: %w", place, err)
		return
	}
	l.v.Set(key, v)
}
