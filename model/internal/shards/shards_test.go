package shards

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"graft/model/stored"
)

// lines is a source with one tensor per line of its file.
type lines struct {
	names  []string
	path   string
	closed *int
}

func (l lines) Names() []string { return l.names }
func (l lines) Close() error    { *l.closed++; return nil }
func (l lines) Tensor(name string) (stored.Tensor, bool) {
	return stored.Tensor{Name: name, File: l.path}, slices.Contains(l.names, name)
}

// write fills a folder and returns an opener of its files that counts.
func write(t *testing.T, files map[string]string) (dir string, open func(string) (stored.Source, error), opened, closed *int) {
	t.Helper()
	dir, opened, closed = t.TempDir(), new(int), new(int)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, func(path string) (stored.Source, error) {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		*opened++
		return lines{strings.Fields(string(b)), path, closed}, nil
	}, opened, closed
}

func TestOpen(t *testing.T) {
	dir, open, opened, closed := write(t, map[string]string{
		"index.json": `{"metadata":{"total_size":1},"weight_map":{"b":"one","a":"two","c":"one"}}` + "\n",
		"one":        "b c unlisted", "blob": "a",
	})
	if err := os.Symlink("blob", filepath.Join(dir, "two")); err != nil {
		t.Fatal(err)
	}
	s, err := Open(filepath.Join(dir, "index.json"), open)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Names(); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("names %v", got)
	}
	for name, shard := range map[string]string{"a": "two", "b": "one", "c": "one"} {
		if v, ok := s.Tensor(name); !ok || v.File != filepath.Join(dir, shard) {
			t.Errorf("%s: %v from %s, want %s", name, ok, v.File, shard)
		}
	}
	for _, name := range []string{"unlisted", "d", ""} {
		if _, ok := s.Tensor(name); ok {
			t.Errorf("there is a tensor %q", name)
		}
	}
	if err := s.Close(); err != nil || *opened != 2 || *closed != 2 {
		t.Errorf("%v; opened %d, closed %d", err, *opened, *closed)
	}
}

func TestOpenErrors(t *testing.T) {
	for _, c := range []struct{ index, want string }{
		{`{"a":"one","d":"two"}`, "tensor d is missing in its shard two"},
		{`{"a":"one","b":"two"}`, "tensor b should be in two, and is in one"},
		{`{"a":"one","x":"three"}`, "shard three is missing"},
		{`{"a":"one","a":"two"}`, `"a" is there twice`},
		{`{"a":"../one"}`, "shard ../one: must be the name of a file"},
		{`{"a":"/etc/passwd"}`, "must be the name of a file"},
		{`{"a":"sub/one"}`, "must be the name of a file"},
		{`{"a":"sub\\one"}`, "must be the name of a file"},
		{`{"a":"C:one"}`, "must be the name of a file"},
		{`{"a":".."}`, "must be the name of a file"},
		{`{"a":"."}`, "must be the name of a file"},
		{`{"a":""}`, "an empty name"},
		{`{"a":"o\u0000ne"}`, "unprintable"},
		{`{"a\n":"one"}`, "unprintable"},
		{`{"a":1}`, "want a string"},
		{`{}`, "lists no tensors"},
		{`[]`, "want an object"},
	} {
		dir, open, opened, closed := write(t, map[string]string{
			"index.json": fmt.Sprintf(`{"weight_map":%s}`, c.index), "one": "a b", "two": "c",
		})
		s, err := Open(filepath.Join(dir, "index.json"), open)
		if err == nil || s != nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "index.json: ") {
			t.Errorf("%s: %v, %v, want an error with %q", c.index, s, err, c.want)
		}
		if *opened != *closed {
			t.Errorf("%s: %d files opened, %d closed", c.index, *opened, *closed)
		}
	}
}

func TestIndexText(t *testing.T) {
	for _, text := range []string{"", "{", `{"weight_map":{"a":"b"}} {}`, `{"weight_map":{"a":"b"}`, "\xff"} {
		if _, err := parseIndex([]byte(text)); err == nil {
			t.Errorf("%q is an index", text)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "x"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing index: %v", err)
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":1},"weight_map":{"b":"one","a":"two"}}`))
	f.Add([]byte(`{"weight_map":{"b":"../one"}}`))
	f.Add([]byte(`{"weight_map":{"b":"/x","b":""}} x`))
	f.Fuzz(func(t *testing.T, b []byte) {
		where, err := parseIndex(b)
		for tensor, shard := range where {
			if err == nil && (tensor == "" || filepath.Base(shard) != shard || filepath.Join("d", shard) != "d/"+shard) {
				t.Errorf("%q → %q", tensor, shard)
			}
		}
	})
}
