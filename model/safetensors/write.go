package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"unicode/utf8"

	"graft/kernels"
	"graft/model/stored"
)

// Write writes a file: to a temporary name beside it, then renamed, so that
// path always holds a complete file, and one that is mapped from there stays
// as it was. It does not sync: whoever needs the file to survive a power cut
// uses [WriteTo].
func Write(path string, tensors []stored.Tensor, metadata map[string]string) (err error) {
	partial := path + ".partial"
	f, err := os.Create(partial)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(partial)
		}
	}()
	if err := WriteTo(f, tensors, metadata); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(partial, path)
}

// WriteTo streams a file. The bytes depend on the tensors and the metadata
// only, not on the order of the tensors: as the format's own library does it,
// types with large elements come first, so that every tensor is aligned, and
// equal types are sorted by name.
func WriteTo(w io.Writer, tensors []stored.Tensor, metadata map[string]string) error {
	sorted := slices.Clone(tensors)
	slices.SortStableFunc(sorted, func(a, b stored.Tensor) int {
		return cmp.Or(cmp.Compare(rank(a.DType), rank(b.DType)), cmp.Compare(a.Name, b.Name))
	})
	if err := checkTensors(sorted); err != nil {
		return err
	}
	header, err := header(sorted, metadata)
	if err != nil {
		return err
	}
	if _, err := w.Write(header); err != nil {
		return err
	}
	for _, t := range sorted {
		if _, err := w.Write(t.Data); err != nil {
			return fmt.Errorf("tensor %s: %w", t.Name, err)
		}
	}
	return nil
}

// order of the types in a file: the reverse of the order in which the format's
// own library declares them.
var order = [...]kernels.DType{
	kernels.I64, kernels.F64, kernels.F32, kernels.I32, kernels.BF16, kernels.F16,
	kernels.I16, kernels.I8, kernels.U8, kernels.Bool,
}

func rank(d kernels.DType) int { return slices.Index(order[:], d) }

func checkTensors(tensors []stored.Tensor) error {
	names := make(map[string]bool, len(tensors))
	total := 0
	for _, t := range tensors {
		if err := stored.CheckName(t.Name); err != nil {
			return fmt.Errorf("a tensor has %w", err)
		}
		if names[t.Name] || t.Name == metadataKey {
			return fmt.Errorf("tensor %s: the name is taken", t.Name)
		}
		names[t.Name] = true
		if rank(t.DType) < 0 {
			return fmt.Errorf("tensor %s: type %s cannot be written", t.Name, t.Type())
		}
		n, ok := stored.Elements(t.Shape)
		if !ok || len(t.Data)%t.DType.Size() != 0 || len(t.Data)/t.DType.Size() != n {
			return fmt.Errorf("tensor %s: %d bytes for shape %v of %v", t.Name, len(t.Data), t.Shape, t.DType)
		}
		// Views may share memory, so the sum can pass what memory holds.
		if len(t.Data) > math.MaxInt-total {
			return fmt.Errorf("tensor %s: more than %d bytes in one file", t.Name, math.MaxInt)
		}
		total += len(t.Data)
	}
	return nil
}

// header returns the length and the padded JSON text.
func header(sorted []stored.Tensor, metadata map[string]string) ([]byte, error) {
	b := bytes.NewBuffer(make([]byte, 8, 64+128*len(sorted)))
	b.WriteByte('{')
	if len(metadata) > 0 {
		if err := writeMetadata(b, metadata); err != nil {
			return nil, err
		}
	}
	at := 0
	for _, t := range sorted {
		separate(b)
		writeString(b, t.Name)
		fmt.Fprintf(b, `:{"dtype":"%v","shape":[`, t.DType)
		for i, d := range t.Shape {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprint(b, d)
		}
		fmt.Fprintf(b, `],"data_offsets":[%d,%d]}`, at, at+len(t.Data))
		at += len(t.Data)
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	if b.Len()-8 > maxHeader {
		return nil, fmt.Errorf("the header takes %d bytes, at most %d are allowed", b.Len()-8, maxHeader)
	}
	binary.LittleEndian.PutUint64(b.Bytes(), uint64(b.Len()-8))
	return b.Bytes(), nil
}

func writeMetadata(b *bytes.Buffer, metadata map[string]string) error {
	writeString(b, metadataKey)
	b.WriteString(":{")
	for i, k := range slices.Sorted(maps.Keys(metadata)) {
		if !utf8.ValidString(k) || !utf8.ValidString(metadata[k]) {
			return fmt.Errorf("metadata %.40q: not UTF-8", k)
		}
		if i > 0 {
			b.WriteByte(',')
		}
		writeString(b, k)
		b.WriteByte(':')
		writeString(b, metadata[k])
	}
	b.WriteByte('}')
	return nil
}

// separate writes the comma between members of the header.
func separate(b *bytes.Buffer) {
	if b.Len() > len("12345678{") {
		b.WriteByte(',')
	}
}

func writeString(b *bytes.Buffer, s string) {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic("safetensors: a string that JSON cannot hold: " + err.Error())
	}
	b.Truncate(b.Len() - 1) // the encoder's newline
}
