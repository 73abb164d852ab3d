package pickle

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"graft/kernels"
)

// The files of these tests are made here: programs as torch.save writes them,
// instruction by instruction, in both formats.

// testStorage is a storage to write.
type testStorage struct {
	key, class string
	elements   int
	data       []byte
}

func floats(key string, values ...float64) testStorage {
	return testStorage{key, "FloatStorage", len(values), bytesOf(kernels.F32, values...)}
}

func bytesOf(d kernels.DType, values ...float64) []byte {
	b := make([]byte, len(values)*d.Size())
	kernels.EncodeFloat64(b, values, d)
	return b
}

// program is a pickle under construction.
type program struct{ bytes.Buffer }

// build writes protocol 2 and the pieces: Go strings and ints become values,
// raw is copied.
func build(pieces ...any) []byte {
	var p program
	p.WriteString("\x80\x02")
	p.add(pieces...)
	p.WriteByte(opStop)
	return p.Bytes()
}

type raw string

func (p *program) add(pieces ...any) {
	for _, v := range pieces {
		switch v := v.(type) {
		case raw:
			p.WriteString(string(v))
		case string:
			p.WriteByte('X')
			p.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(v))))
			p.WriteString(v)
		case int:
			p.number(v)
		case []int:
			p.WriteByte('(')
			for _, n := range v {
				p.number(n)
			}
			p.WriteByte('t')
		case tensor:
			p.tensor(v)
		case []entry:
			p.dict(v)
		case []any:
			p.add(v...)
		case bool:
			p.WriteByte(map[bool]byte{true: 0x88, false: 0x89}[v])
		case nil:
			p.WriteByte('N')
		default:
			panic(fmt.Sprintf("no pickle for %T", v))
		}
	}
}

func (p *program) number(n int) {
	switch {
	case n == int(int32(n)):
		p.WriteByte('J')
		p.Write(binary.LittleEndian.AppendUint32(nil, uint32(n)))
	default:
		p.WriteString("\x8a\x08")
		p.Write(binary.LittleEndian.AppendUint64(nil, uint64(n)))
	}
}

// tensor is a call of _rebuild_tensor_v2.
type tensor struct {
	storage       testStorage
	offset        int
	shape, stride []int
}

const emptyOrderedDict = raw("ccollections\nOrderedDict\n)R")

func (p *program) tensor(t tensor) {
	p.add(raw("ctorch._utils\n_rebuild_tensor_v2\n("), t.storage.id(), t.offset, t.shape, t.stride, false, emptyOrderedDict, raw("tR"))
}

// id is the instructions that push a storage.
func (s testStorage) id() []any {
	return []any{raw("("), "storage", raw("ctorch\n" + s.class + "\n"), s.key, "cpu", s.elements, raw("tQ")}
}

type entry struct {
	key   string
	value any
}

func (p *program) dict(entries []entry) {
	p.add(raw("}("))
	for _, e := range entries {
		p.add(e.key, e.value)
	}
	p.add(raw("u"))
}

// file is a name and the bytes of an entry of a zip file.
type file struct {
	name string
	data []byte
}

func zipOf(t testing.TB, method uint16, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range files {
		e, err := w.CreateHeader(&zip.FileHeader{Name: f.name, Method: method})
		if err == nil {
			_, err = e.Write(f.data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// zipFile is a file in the zip format.
func zipFile(t testing.TB, program []byte, storages ...testStorage) []byte {
	files := []file{{"x/data.pkl", program}, {"x/byteorder", []byte("little")}, {"x/version", []byte("3\n")}}
	for _, s := range storages {
		files = append(files, file{"x/data/" + s.key, s.data})
	}
	return zipOf(t, zip.Store, files...)
}

const magicPickle = "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

func legacyPrologue(littleEndian bool) []byte {
	b := append([]byte(magicPickle), build(legacyVersion)...)
	return append(b, build([]entry{{"protocol_version", legacyVersion}, {"little_endian", littleEndian}})...)
}

// legacyFile is a file in the older format.
func legacyFile(program []byte, storages ...testStorage) []byte {
	b := append(legacyPrologue(true), program...)
	keys := []any{raw("](")}
	for _, s := range storages {
		keys = append(keys, s.key)
	}
	b = append(b, build(append(keys, raw("e"))...)...)
	for _, s := range storages {
		b = binary.LittleEndian.AppendUint64(b, uint64(s.elements))
		b = append(b, s.data...)
	}
	return b
}

// save writes a file and returns its path.
func save(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.bin")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
