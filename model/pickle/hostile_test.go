package pickle

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func refused(t *testing.T, name string, data []byte, want string) {
	t.Helper()
	path := save(t, data)
	s, err := Open(path)
	if err == nil || s != nil || !strings.HasPrefix(err.Error(), path+": ") || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, %v, want an error with %q", name, s, err, want)
		return
	}
	text := strings.TrimPrefix(err.Error(), path)
	if len(text) > 500 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) {
		t.Errorf("%s: a message not fit for printing: %.600q", name, text)
	}
}

// TestHostilePrograms runs programs that torch.save would not write, in both
// formats.
func TestHostilePrograms(t *testing.T) {
	view := func(offset int, shape, stride []int) []byte {
		return build([]entry{{"w", tensor{count24, offset, shape, stride}}})
	}
	id := func(pieces ...any) []byte {
		return build(raw("("), slices.Insert(pieces, len(pieces), any(raw("tQ"))))
	}
	const class = raw("ctorch\nFloatStorage\n")
	const rebuild = raw("ctorch._utils\n_rebuild_tensor_v2\n")
	big := 1 << 62
	for _, c := range []struct {
		name    string
		program []byte
		want    string
	}{
		{"system", build(raw("cos\nsystem\n"), "touch x", raw("\x85R")), "torch: os.system is not allowed in a checkpoint: convert the file to safetensors"},
		{"system from the stack", build("os", "system", raw("\x93"), "touch x", raw("\x85R")), "torch: os.system is not allowed"},
		{"instance", build(raw("csome.mod\nThing\n)\x81}b")), "torch: some.mod.Thing is not allowed"},
		{"builtin", build(raw("c__builtin__\nobject\n")), "torch: __builtin__.object is not allowed"},
		{"reconstructor", build(raw("ccopy_reg\n_reconstructor\n")), "torch: copy_reg._reconstructor is not allowed"},
		{"unprintable class", build(raw("ca\x1b[2J\nb\xff\n")), "torch: a.[2J.b"},
		{"long class", build(raw("c" + strings.Repeat("a", 5000) + "\nb\n")), "…"},
		{"unknown storage", build(raw("ctorch\nComplexFloatStorage\n")), "torch.ComplexFloatStorage is not allowed"},
		{"unknown instruction", build(raw("\xff")), "byte 2: instruction 0xff"},
		{"old instance", build(raw("(ios\nsystem\n")), "instruction 0x69"},
		{"extension", build(raw("\x82\x01")), "instruction 0x82"},
		{"value missing", build(raw("}(K\x01u")), "malformed"},
		{"nothing on the stack", build(raw("a")), "malformed"},
		{"no mark", build(raw("t")), "malformed"},
		{"protocol 9", []byte("\x80\x09}."), "unsupported pickle protocol"},
		{"unhashable key", build(emptyOrderedDict, raw("C\x01aK\x01s")), "malformed: hash of unhashable type"},
		{"huge text", build(raw("\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa")), "a length of 9223372036854775807 bytes, past the end"},
		{"huge bytes", build(raw("\x8e\xff\xff\xff\xff\xff\xff\xff\xffa")), "past the end"},
		{"4 GB text", build(raw("X\xff\xff\xff\xffa")), "past the end"},
		{"huge frame", build(raw("\x95\xff\xff\xff\xff\xff\xff\xff\x7f")), "a frame of 9223372036854775807 bytes, past the end"},
		{"frame into the storages", append(build(raw("}\x95\x08\x00\x00\x00\x00\x00\x00\x00")), "12345678901234567890"...), "a frame runs 7 bytes past its end"},
		{"long text", build(strings.Repeat("a", maxText+1)), "a text of 1048577 bytes"},
		{"endless line", build(raw("I" + strings.Repeat("1", maxText+1))), "a line without end"},
		{"no line", build(raw("I1")), "a line without end"},
		{"empty integer", build(raw("\x8a\x00")), "an integer of 0 bytes"},
		{"long integer", build(raw("\x8b\x00\x01\x00\x00" + strings.Repeat("\x01", 256))), "an integer of 256 bytes"},
		{"cyclic arguments", build(rebuild, raw("]q\x00h\x00a\x85R")), "made from 1 values"},
		{"calling a cyclic list", build(raw("]q\x00h\x00a)R")), "malformed"},
		{"attributes of a cyclic dict", build(raw("}q\x00K\x01h\x00sh\x00b")), "malformed"},
		{"class of a cyclic tuple", build(raw("]q\x00h\x00h\x00\x86ah\x00)\x81")), "malformed"},
		{"dict in itself", build(raw("}q\x00"), "model", raw("h\x00s")), "more than 4 dicts inside each other"},
		{"no dict", build(raw("]")), "no dict of tensors"},
		{"None", build(nil), "no dict of tensors"},
		{"no tensors", build([]entry{{"a", 1}, {"b\n", 2}}), "no tensors in the file: its entries are a, b."},
		{"empty dict", build(raw("}")), "no tensors in the file"},
		{"twice", build([]entry{{"w", tensor{count24, 0, nil, nil}}, {"w", tensor{count24, 0, nil, nil}}}), "tensor w is there twice"},
		{"number as name", build(raw("}K\x01"), tensor{count24, 0, nil, nil}, raw("s")), "name is no string"},
		{"unprintable name", build([]entry{{"\x1b[2J", tensor{count24, 0, nil, nil}}}), "unprintable"},

		{"past the storage", view(20, []int{5}, []int{1}), "runs past its storage (storage 0 of 24 elements)"},
		{"rows past the storage", view(0, []int{4, 6}, []int{7, 1}), "runs past its storage"},
		{"offset past the storage", view(24, []int{1}, []int{1}), "begins outside its storage"},
		{"negative offset", view(-1, []int{1}, []int{1}), "begins outside its storage"},
		{"huge offset", view(big, []int{1}, []int{1}), "begins outside its storage"},
		{"negative size", view(0, []int{-1, -24}, []int{1, 1}), "has no possible size"},
		{"negative stride", view(23, []int{4}, []int{-1}), "runs past its storage"},
		{"huge stride", view(0, []int{2, 2}, []int{big, big}), "runs past its storage"},
		{"huge size", view(0, []int{big, 4}, []int{0, 0}), "has no possible size"},
		{"expanded", view(0, []int{1000, 1000}, []int{0, 0}), "repeats elements"},
		{"strides missing", view(0, []int{4, 6}, []int{1}), "not one stride for each dimension"},
		{"17 dimensions", view(0, make([]int, 17), make([]int, 17)), "values of the wrong types"},
		{"metadata", build(rebuild, raw("("), count24.id(), 0, []int{1}, []int{1}, false, nil, []entry{{"neg", true}}, raw("tR")), "a tensor with metadata"},
		{"shape of text", build(rebuild, raw("("), count24.id(), 0, "ab", []int{1}, false, nil, raw("tR")), "wrong types"},
		{"storage of text", build(rebuild, raw("("), "storage", 0, []int{1}, []int{1}, false, nil, raw("tR")), "wrong types"},
		{"parameter of text", build(raw("ctorch._utils\n_rebuild_parameter\n("), "x", true, nil, raw("tR")), "made from no tensor"},

		{"id of text", build("x", raw("Q")), "malformed id"},
		{"short id", id("storage", class, "0", "cpu"), "malformed id"},
		{"other id", id("module", class, "0", "cpu", 24), "malformed id"},
		{"number as key", id("storage", class, 0, "cpu", 24), "malformed id"},
		{"negative count", id("storage", class, "0", "cpu", -1), "malformed id"},
		{"list in id", build(raw("]q\x00h\x00ah\x00h\x00h\x00\x87(th\x00h\x00\x86Q")), "malformed id"},
		{"huge count", id("storage", class, "0", "cpu", big), "elements are too many"},
		{"view of storage", id("storage", class, "0", "cpu", 24, []int{1}), "is a view of another"},
		{"two types", build(count24.id(), testStorage{"0", "HalfStorage", 24, nil}.id()), "in one place and"},
	} {
		var storages []testStorage
		if bytes.Contains(c.program, []byte("FloatStorage")) {
			storages = append(storages, count24)
		}
		for format, data := range formats(t, c.program, storages...) {
			refused(t, c.name+", "+format, data, c.want)
		}
	}
}

func TestHostileZip(t *testing.T) {
	program := build([]entry{{"w", tensor{count24, 0, []int{24}, []int{1}}}})
	pkl, little := file{"x/data.pkl", program}, file{"x/byteorder", []byte("little")}
	data := file{"x/data/0", count24.data}
	good := zipOf(t, zip.Store, pkl, little, data)
	missing := tensor{testStorage{"../../0", "FloatStorage", 24, nil}, 0, []int{1}, []int{1}}
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "not a file of torch.save"},
		{"zeros", make([]byte, 4096), "not a file of torch.save"},
		{"text", []byte("version https://git-lfs.github.com/spec/v1\n"), "not a file of torch.save"},
		{"truncated", good[:len(good)-30], "zip: "},
		{"header only", good[:30], "zip: "},
		{"no program", zipOf(t, zip.Store, little, data), "no data.pkl"},
		{"deep program", zipOf(t, zip.Store, file{"x/y/data.pkl", program}), "no data.pkl"},
		{"two programs", zipOf(t, zip.Store, pkl, file{"y/data.pkl", program}), "which one?"},
		{"twice", zipOf(t, zip.Store, pkl, pkl), "x/data.pkl is there twice"},
		{"compressed", zipOf(t, zip.Deflate, pkl, little, data), "is compressed"},
		{"big-endian", zipOf(t, zip.Store, pkl, file{"x/byteorder", []byte("big")}, data), `byte order "big": only little-endian`},
		{"storage missing", zipOf(t, zip.Store, pkl, little), "x/data/0 is missing"},
		{"storage elsewhere", zipFile(t, build([]entry{{"w", missing}}), count24), "x/data/../../0 is missing"},
		{"short storage", zipOf(t, zip.Store, pkl, little, file{"x/data/0", count24.data[:95]}), "storage 0 has 95 bytes, 24 elements of F32 need 96"},
		{"no STOP", zipFile(t, []byte("\x80\x02}")), "ends without STOP"},
		{"empty program", zipOf(t, zip.Store, file{"x/data.pkl", nil}), "ends without STOP"},
	} {
		refused(t, c.name, c.file, c.want)
	}
	// A directory entry that reaches past the file: both sizes, enlarged.
	i := bytes.LastIndex(good, []byte("x/data/0")) - 46
	for _, at := range []int{20, 24} {
		binary.LittleEndian.PutUint32(good[i+at:], 1<<31)
	}
	refused(t, "entry past the end", good, "x/data/0 runs past the end of the file: truncated")
}

func TestHostileLegacy(t *testing.T) {
	program := build([]entry{{"w", tensor{count24, 0, []int{24}, []int{1}}}})
	prologue := string(legacyPrologue(true))
	keys := func(pieces ...any) string {
		return string(build(append(append([]any{raw("](")}, pieces...), raw("e"))...))
	}
	good := legacyFile(program, count24)
	count := string(binary.LittleEndian.AppendUint64(nil, 24))
	values := string(count24.data)
	for _, c := range []struct{ name, file, want string }{
		{"other pickle", string(build(5)), "a pickle, but not a file of torch.save"},
		{"other version", magicPickle + string(build(1002)), "not version 1001"},
		{"big-endian", string(legacyPrologue(false)), "byte order big"},
		{"no system", magicPickle + string(build(1001)) + string(build(nil)), "byte order big"},
		{"storage in the prologue", string(build(count24.id())), "a storage where none belongs"},
		{"no object", prologue, "ends without STOP"},
		{"no list", prologue + string(program), "ends without STOP"},
		{"dict as list", prologue + string(program) + string(build(raw("}"))), "no list of storages"},
		{"list too long", prologue + string(program) + keys("0", "1") + count + values, "no tensor uses"},
		{"numbers in the list", prologue + string(program) + keys(0), "no tensor uses"},
		{"list too short", prologue + string(program) + keys(), "storage 0 is missing"},
		{"listed twice", prologue + string(program) + keys("0", "0") + count + values, "storage 0 is there twice"},
		{"no count", prologue + string(program) + keys("0") + count[:7], "storage 0: the file ends before it"},
		{"other count", prologue + string(program) + keys("0") + "\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615 elements, its tensors say 24"},
		{"truncated", string(good[:len(good)-1]), "storage 0: 96 bytes, and only 95 follow: truncated"},
	} {
		refused(t, c.name, []byte(c.file), c.want)
	}
}

// TestCopies refuses a file whose tensors, each within its storage, together
// would take far more memory than the file.
func TestCopies(t *testing.T) {
	var entries []entry
	for i := range 100 {
		entries = append(entries, entry{fmt.Sprint(i), raw("h\x01")})
	}
	s := testStorage{"0", "FloatStorage", 1 << 14, make([]byte, 4<<14)}
	p := build([]any{tensor{s, 0, []int{1 << 7, 1 << 7}, []int{1, 1 << 7}}, raw("q\x010"), entries})
	for format, data := range formats(t, p, s) {
		refused(t, format, data, "the copies of tensors that are not contiguous take more than the file's")
	}
}

// TestBombs bounds the time and the memory of programs that are short for what
// they do. Most are refused before they run; those that are "just allowed" are
// nearly as long as the scan lets them be.
func TestBombs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	many := func(s string, n int) raw { return raw(strings.Repeat(s, n)) }
	text := strings.Repeat("\x00", 30000)
	for _, c := range []struct {
		name    string
		program []byte
	}{
		{"marks", build(many("(", 4<<20))},
		{"dicts", build(many("}", 4<<20))},
		{"duplicates", build("x", many("2", 4<<20))},
		{"list in lists", build(raw("]q\x00"), many("(h\x00h\x00h\x00h\x00e", 1<<22))},
		{"ordered dicts", build(raw("ccollections\nOrderedDict\nq\x000"), many("h\x00)R", 1<<20))},
		{"attributes", build(raw("}("), many("X\x01\x00\x00\x00kK\x01", 1<<19), raw("uq\x000"), many("ccollections\nOrderedDict\n)Rh\x00b", 100))},
		{"long key", build(text, raw("q\x000"), emptyOrderedDict, many("h\x00K\x01s", 1<<20))},
		{"long message", build(text, raw("q\x000]("), many("h\x00", 1<<10), raw("e)R"))},
		{"long bytes message", build(raw("B\x00\x00\x04\x00"+strings.Repeat("b", 1<<18)+"q\x000]("), many("h\x00", 14), raw("e)R"))},
		{"marks, just allowed", build(many("(", 1000000), raw("}"))},
		{"dicts, just allowed", build(many("}", 1600000))},
		{"sets, just allowed", build(many("\x8f", 1000000))},
		{"memo, just allowed", build(many("}\x94", 1000000))},
		{"ordered dicts, just allowed", build(raw("ccollections\nOrderedDict\nq\x000"), many("h\x00)R", 500000))},
		{"keys", build(emptyOrderedDict, distinct(600000))},
		{"attributes, just allowed", build(raw("}"), distinct(200000), raw("q\x000"), many("ccollections\nOrderedDict\n)Rh\x00b", 12))},
		{"long key, just allowed", build(strings.Repeat("k", 25), raw("q\x000"), emptyOrderedDict, many("h\x00K\x01s", 1000000))},
		{"tensors", build(tensor{count24, 0, []int{24}, []int{1}}, many("0ctorch._utils\n_rebuild_tensor_v2\n)R", 1<<20))},
	} {
		data := zipFile(t, c.program, count24)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		_, err := parse(data)
		took := time.Since(began)
		runtime.ReadMemStats(&after)
		if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 2<<30 || took > 10*time.Second {
			t.Errorf("%s: allocated %d MB in %v", c.name, allocated>>20, took)
		}
		t.Logf("%-20s %6d MB, %v: %.100v", c.name, (after.TotalAlloc-before.TotalAlloc)>>20, took, err)
		if err == nil {
			t.Errorf("%s: no error", c.name)
		}
	}
}

// distinct sets n entries of a dict to 1.
func distinct(n int) raw {
	var b strings.Builder
	for i := range n {
		b.WriteString("X\x04\x00\x00\x00")
		b.Write(binary.LittleEndian.AppendUint32(nil, uint32(i)))
		b.WriteString("K\x01s")
	}
	return raw(b.String())
}

func FuzzParse(f *testing.F) {
	for _, data := range formats(f, build(everyView), floatStorages...) {
		f.Add(data)
	}
	f.Add(zipFile(f, build(emptyOrderedDict, raw("}"), "_metadata", []entry{{"", nil}}, raw("sb"), raw("]q\x00h\x00a)R")), count24))
	f.Add(legacyFile(build([]entry{{"state_dict", []entry{{"w", tensor{count24, 1, []int{2, 2}, []int{1, 2}}}}}}), count24))
	f.Fuzz(func(t *testing.T, data []byte) { touch(t, data) })
}

// FuzzProgram mutates the program alone, which a fuzzer hardly reaches through
// a zip file.
func FuzzProgram(f *testing.F) {
	f.Add(build(everyView))
	f.Add(build([]entry{{"model", []any{emptyOrderedDict, raw("("), "w", tensor{count24, 0, []int{24}, []int{1}}, raw("u}"), "_metadata", nil, raw("sb")}}}))
	f.Add(build(raw("]q\x00h\x00a)R")))
	f.Add(build("torch", "FloatStorage", raw("\x93\x94\x8f(K\x01\x90\x8a\x01\x05L5\nI01\nG\x00\x00\x00\x00\x00\x00\x00\x00")))
	f.Fuzz(func(t *testing.T, program []byte) { touch(t, legacyFile(program, floatStorages...)) })
}

// touch reads all bytes of all tensors.
func touch(t *testing.T, data []byte) {
	views, err := parse(data)
	if err != nil {
		return
	}
	total := 0
	for name, v := range views {
		b := v.data()
		if len(b) != v.elements*v.storage.dtype.Size() {
			t.Errorf("%s: %d bytes for shape %v", name, len(b), v.shape)
		}
		if v.copied != nil {
			total += len(b)
		}
	}
	if total > len(data) {
		t.Errorf("copies of %d bytes from a file of %d", total, len(data))
	}
}
