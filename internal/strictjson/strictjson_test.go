package strictjson

import (
	"fmt"
	"strings"
	"testing"
)

// read turns an object of strings, arrays of sizes and others into a line.
func read(text string) (string, error) {
	d, err := NewDecoder([]byte(text))
	if err != nil {
		return "", err
	}
	var out []string
	err = Object(d, func(key string) error {
		switch key[0] {
		case 's':
			v, err := String(d)
			out = append(out, key+"="+v)
			return err
		case 'n':
			v, err := Sizes(d)
			out = append(out, fmt.Sprint(key, "=", v))
			return err
		}
		return Skip(d)
	})
	return strings.Join(out, " "), err
}

func TestObject(t *testing.T) {
	for _, c := range []struct{ text, want, err string }{
		{`{}`, "", ""},
		{`{"s":"a","n":[1,2],"x":{"y":[{}]},"s2":"é\u00e9"}`, "s=a n=[1 2] s2=éé", ""},
		{`{"n":[]}`, "n=[]", ""},
		{`{"n":[9223372036854775807]}`, "n=[9223372036854775807]", ""},
		{`{"n":[9223372036854775808]}`, "", "whole number"},
		{`{"n":[-1]}`, "", "whole number"},
		{`{"n":[1.0]}`, "", "whole number"},
		{`{"n":[1e3]}`, "", "whole number"},
		{`{"n":["1"]}`, "", "want a number"},
		{`{"n":[null]}`, "", "null, want a number"},
		{`{"n":{}}`, "", "want an array"},
		{`{"s":1}`, "", "want a string"},
		{`{"s":"a","s":"b"}`, "", `"s" is there twice`},
		{`{"s":"a","\u0073":"b"}`, "", `"s" is there twice`},
		{`[]`, "", "want an object"},
		{``, "", "ends too early"},
		{`{"s":"a"`, "", "ends too early"},
		{`{"x":{"y`, "", "ends too early"},
		{`{"s":"a",}`, "", "object key string"},
		{"{\"s\":\"\xff\"}", "", "not UTF-8"},
		{`{"x":` + strings.Repeat("[", 100000), "", "depth"},
	} {
		got, err := read(c.text)
		if c.err == "" && (err != nil || got != c.want) {
			t.Errorf("%.60s: %q, %v; want %q", c.text, got, err, c.want)
		}
		if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%.60s: error %v, want one with %q", c.text, err, c.err)
		}
	}
}
