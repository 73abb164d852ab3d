// Package strictjson reads JSON objects whose keys are data, such as the
// header of a safetensors file, one member at a time. Unlike decoding into a
// map it refuses a key that stands there twice, keeps the order, converts no
// value, and never builds more than the caller asks for.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

// NewDecoder returns a decoder for the functions of this package.
func NewDecoder(b []byte) (*json.Decoder, error) {
	if !utf8.Valid(b) { // encoding/json would replace what is not
		return nil, errors.New("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d, nil
}

// Object reads an object and calls member for every key; member must read the
// value.
func Object(d *json.Decoder, member func(key string) error) error {
	if err := delim(d, '{', "an object"); err != nil {
		return err
	}
	seen := map[string]bool{}
	for d.More() {
		key, err := String(d)
		if err != nil {
			return err
		}
		if seen[key] {
			return fmt.Errorf("the key %.100q is there twice", key)
		}
		seen[key] = true
		if err := member(key); err != nil {
			return err
		}
	}
	return delim(d, '}', "the end of an object")
}

// Skip reads a value of any kind.
func Skip(d *json.Decoder) error {
	var v json.RawMessage
	return wrap(d.Decode(&v))
}

// String reads a string.
func String(d *json.Decoder) (string, error) {
	t, err := token(d)
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", fmt.Errorf("%s, want a string", describe(t))
	}
	return s, nil
}

// Sizes reads an array of non-negative integers.
func Sizes(d *json.Decoder) ([]int, error) {
	if err := delim(d, '[', "an array"); err != nil {
		return nil, err
	}
	out := []int{}
	for d.More() {
		t, err := token(d)
		if err != nil {
			return nil, err
		}
		n, ok := t.(json.Number)
		if !ok {
			return nil, fmt.Errorf("%s, want a number", describe(t))
		}
		v, err := strconv.ParseUint(n.String(), 10, strconv.IntSize-1)
		if err != nil {
			return nil, fmt.Errorf("%.40s, want a whole number from 0 up to %d bits", n, strconv.IntSize-1)
		}
		out = append(out, int(v))
	}
	return out, delim(d, ']', "the end of an array")
}

func delim(d *json.Decoder, want json.Delim, what string) error {
	t, err := token(d)
	if err != nil {
		return err
	}
	if t != want {
		return fmt.Errorf("%s, want %s", describe(t), what)
	}
	return nil
}

func token(d *json.Decoder) (json.Token, error) {
	t, err := d.Token()
	return t, wrap(err)
}

// wrap names the end of the text, which the decoder calls EOF.
func wrap(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the JSON ends too early")
	}
	return err
}

func describe(t json.Token) string {
	switch v := t.(type) {
	case nil:
		return "null"
	case string:
		return fmt.Sprintf("%.40q", v)
	case json.Delim:
		return fmt.Sprintf("%q", v.String())
	}
	return fmt.Sprintf("%.40v", t)
}
