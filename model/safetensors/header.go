package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"graft/internal/strictjson"
	"graft/kernels"
	"graft/model/stored"
)

const (
	maxHeader   = 100 << 20 // bytes; about the limit of the format's own library, 100 MB
	metadataKey = "__metadata__"
)

// entry is one tensor of a header.
type entry struct {
	stored.Tensor
	begin, end int // of the data
}

// parse checks a whole file and describes its tensors.
func parse(path string, file []byte) (*File, error) {
	text, data, err := split(file)
	if err != nil {
		return nil, err
	}
	metadata, entries, err := parseHeader(text)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	for _, e := range entries {
		if err := e.check(len(data)); err != nil {
			return nil, fmt.Errorf("tensor %s: %w", e.Name, err)
		}
	}
	if err := checkLayout(entries, len(data)); err != nil {
		return nil, err
	}
	f := &File{Metadata: metadata, tensors: make(map[string]stored.Tensor, len(entries))}
	for _, e := range entries {
		e.Data, e.File = data[e.begin:e.end:e.end], path
		f.tensors[e.Name] = e.Tensor
	}
	return f, nil
}

// split cuts a file into the header's text and the data.
func split(file []byte) (text, data []byte, err error) {
	if len(file) < 8 {
		return nil, nil, fmt.Errorf("%d bytes are no safetensors file: truncated, or something else", len(file))
	}
	n, rest := binary.LittleEndian.Uint64(file), file[8:]
	if n > maxHeader {
		return nil, nil, fmt.Errorf("the header's length is %d bytes, at most %d are allowed: damaged, or no safetensors file", n, maxHeader)
	}
	if n > uint64(len(rest)) {
		return nil, nil, fmt.Errorf("the header's length is %d bytes and only %d follow: truncated, or no safetensors file", n, len(rest))
	}
	return rest[:n], rest[n:], nil
}

func parseHeader(text []byte) (metadata map[string]string, entries []entry, err error) {
	if len(text) == 0 || text[0] != '{' {
		return nil, nil, errors.New("does not begin with {: no safetensors file")
	}
	d, err := strictjson.NewDecoder(text)
	if err != nil {
		return nil, nil, err
	}
	err = strictjson.Object(d, func(key string) error {
		if key == metadataKey {
			if rest := bytes.TrimLeft(text[d.InputOffset():], ": \t\r\n"); bytes.HasPrefix(rest, []byte("null")) {
				return strictjson.Skip(d) // so writes MLX where there is none
			}
			metadata, err = parseMetadata(d)
			return err
		}
		if err := stored.CheckName(key); err != nil {
			return fmt.Errorf("a tensor has %w", err)
		}
		e, err := parseEntry(d)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", key, err)
		}
		e.Name = key
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if rest := bytes.TrimRight(text[d.InputOffset():], " "); len(rest) > 0 {
		return nil, nil, fmt.Errorf("%d bytes after its JSON object", len(rest))
	}
	return metadata, entries, nil
}

func parseMetadata(d *json.Decoder) (map[string]string, error) {
	m := map[string]string{}
	err := strictjson.Object(d, func(key string) (err error) {
		m[key], err = strictjson.String(d)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", metadataKey, err)
	}
	return m, nil
}

func parseEntry(d *json.Decoder) (entry, error) {
	var e entry
	var dtype string
	var offsets []int
	err := strictjson.Object(d, func(key string) (err error) {
		switch key {
		case "dtype":
			dtype, err = strictjson.String(d)
		case "shape":
			e.Shape, err = strictjson.Sizes(d)
		case "data_offsets":
			offsets, err = strictjson.Sizes(d)
		default:
			return fmt.Errorf("unknown key %.40q", key)
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", key, err)
		}
		return err
	})
	switch {
	case err != nil:
		return e, err
	case dtype == "" || e.Shape == nil || offsets == nil:
		return e, errors.New("dtype, shape or data_offsets is missing")
	case len(offsets) != 2:
		return e, fmt.Errorf("data_offsets has %d numbers, want 2", len(offsets))
	}
	e.begin, e.end = offsets[0], offsets[1]
	var known bool
	if e.DType, known = kernels.ParseDType(dtype); known {
		return e, nil
	}
	if err := stored.CheckName(dtype); err != nil {
		return e, fmt.Errorf("dtype: %w", err)
	}
	e.Foreign = dtype
	return e, nil
}

// check compares one tensor with the size of the data.
func (e entry) check(data int) error {
	if e.begin > e.end {
		return fmt.Errorf("data_offsets %d and %d: the end is before the beginning", e.begin, e.end)
	}
	if e.end > data {
		return fmt.Errorf("ends at byte %d of the data and there are %d: truncated", e.end, data)
	}
	n, ok := stored.Elements(e.Shape)
	if !ok {
		return fmt.Errorf("shape %s is too large", shapeText(e.Shape))
	}
	if e.Foreign != "" { // its size is unknown
		return nil
	}
	if have := e.end - e.begin; have%e.DType.Size() != 0 || have/e.DType.Size() != n {
		return fmt.Errorf("%d bytes for shape %s of %v", have, shapeText(e.Shape), e.DType)
	}
	return nil
}

// shapeText bounds how much of a hostile shape a message shows.
func shapeText(shape []int) string {
	const most = 8
	if len(shape) > most {
		return fmt.Sprintf("%v… (%d dimensions)", shape[:most], len(shape))
	}
	return fmt.Sprint(shape)
}

// checkLayout verifies that the tensors cover the data exactly once.
func checkLayout(entries []entry, data int) error {
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), cmp.Compare(a.Name, b.Name))
	})
	at, before := 0, ""
	for _, e := range entries {
		switch {
		case e.begin < at:
			return fmt.Errorf("tensor %s overlaps tensor %s", e.Name, before)
		case e.begin > at:
			return fmt.Errorf("tensor %s: %d bytes before it belong to no tensor", e.Name, e.begin-at)
		}
		at, before = e.end, e.Name
	}
	if at != data {
		return fmt.Errorf("%d bytes at the end belong to no tensor", data-at)
	}
	return nil
}
