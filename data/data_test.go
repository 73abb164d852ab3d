package data

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"graft/tokenizer"
)

// letters is a tokenizer with a token for each byte, after BOS. "ab" is one
// token, so that a prompt's end may join with a completion's start.
type letters struct{}

const (
	bos = 1
	eos = 2
	ab  = 300
)

func (letters) Encode(text string, special bool) []int32 {
	var ids []int32
	if special {
		ids = append(ids, bos)
	}
	for i := 0; i < len(text); i++ {
		switch {
		case strings.HasPrefix(text[i:], "ab"):
			ids = append(ids, ab)
			i++
		case strings.HasPrefix(text[i:], "$"):
			ids = append(ids, eos)
		default:
			ids = append(ids, int32(text[i]))
		}
	}
	return ids
}

func (letters) EOS() (int32, bool) { return eos, true }

func load(t testing.TB, text string, o Options) (*Set, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.jsonl")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return Load(context.Background(), path, letters{}, o)
}

var masked = Options{MaskPrompt: true, MaxLength: 100}

func TestExamples(t *testing.T) {
	for _, c := range []struct {
		title, text string
		o           Options
		want        []Example
	}{
		{"text", `{"text":"xy"}`, masked, []Example{{[]int32{bos, 'x', 'y', eos}, 1}}},
		{"completion", `{"prompt":"xy","completion":"z"}`, masked, []Example{{[]int32{bos, 'x', 'y', 'z', eos}, 3}}},
		{"unmasked", `{"prompt":"xy","completion":"z"}`, Options{MaxLength: 100}, []Example{{[]int32{bos, 'x', 'y', 'z', eos}, 1}}},
		{"the prompt's last token joins", `{"prompt":"xa","completion":"bz"}`, masked, []Example{{[]int32{bos, 'x', ab, 'z', eos}, 2}}},
		{"empty prompt", `{"prompt":"","completion":"z"}`, masked, []Example{{[]int32{bos, 'z', eos}, 1}}},
		{"EOS is there", `{"text":"x$"}`, masked, []Example{{[]int32{bos, 'x', eos}, 1}}},
		{"blank lines, CRLF, BOM, other keys", "\ufeff{\"text\":\"x\",\"id\":7}\r\n\r\n \n{\"text\":\"y\"}", masked,
			[]Example{{[]int32{bos, 'x', eos}, 1}, {[]int32{bos, 'y', eos}, 1}}},
		{"prompt wins over text", `{"prompt":"x","completion":"y","text":"z"}`, masked, []Example{{[]int32{bos, 'x', 'y', eos}, 2}}},
		{"format text", `{"prompt":"x","completion":"y","text":"z"}`, Options{Format: Text, MaxLength: 9}, []Example{{[]int32{bos, 'z', eos}, 1}}},
		{"truncate", "{\"text\":\"xyz\"}\n{\"text\":\"u\"}", Options{MaxLength: 3, TooLong: Truncate}, []Example{{[]int32{bos, 'x', 'y'}, 1}, {[]int32{bos, 'u', eos}, 1}}},
		{"drop", "{\"text\":\"xyz\"}\n{\"text\":\"u\"}", Options{MaxLength: 3, TooLong: Drop}, []Example{{[]int32{bos, 'u', eos}, 1}}},
	} {
		s, err := load(t, c.text, c.o)
		if err != nil {
			t.Errorf("%s: %v", c.title, err)
			continue
		}
		var got []Example
		trained, tokens := 0, 0
		for i := range s.Len() {
			e := s.Example(i)
			got = append(got, e)
			trained += len(e.Tokens) - e.Start
			tokens += len(e.Tokens)
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) || s.Trained() != trained || s.Tokens() != tokens {
			t.Errorf("%s: %v, want %v", c.title, got, c.want)
		}
		if c.title == "truncate" && s.Truncated() != 1 || c.title == "drop" && s.Dropped() != 1 {
			t.Errorf("%s: %d truncated, %d dropped", c.title, s.Truncated(), s.Dropped())
		}
	}
}

func TestErrors(t *testing.T) {
	const good = "{\"prompt\":\"x\",\"completion\":\"y\"}\n"
	for _, c := range []struct {
		text string
		o    Options
		want string
	}{
		{"", masked, "x.jsonl: no examples: the file is empty"},
		{"\n\n", masked, "no examples"},
		{good + "{\"prompt\": \"x\",}", masked, "x.jsonl:2: malformed JSON at byte 16"},
		{good + "[1]", masked, "x.jsonl:2: not a JSON object"},
		{good + "null", masked, `x.jsonl:2: no key "prompt": the object is empty`},
		{good + `{"promt":"x","completion":"y"}`, masked, `x.jsonl:2: no key "prompt" but "completion", "promt"`},
		{`{"txt":"x"}`, masked, `x.jsonl:1: no key "prompt" but "txt"`},
		{good + `{"prompt":3,"completion":"y"}`, masked, `x.jsonl:2: "prompt" is 3, want a string`},
		{good + `{"prompt":null,"completion":"y"}`, masked, `"prompt" is null, want a string`},
		{good + `{"text":"x"}`, masked, `x.jsonl:2: no key "prompt" but "text"`},
		{good + "{\"prompt\":\"x\xff\",\"completion\":\"y\"}", masked, "x.jsonl:2: not valid UTF-8"},
		{good + `{"prompt":"x","completion":"` + strings.Repeat("y", 200) + `"}`, masked, "x.jsonl:2: 203 tokens, data.max_length is 100: raise it"},
		{good + `{"prompt":"xyz","completion":"w"}`, Options{MaskPrompt: true, MaxLength: 4, TooLong: Truncate}, "x.jsonl:2: nothing is left to train"},
		{`{"text":"xyz"}`, Options{MaxLength: 3, TooLong: Drop}, "all 1 examples are over data.max_length"},
		{good + `{"prompt":"x$","completion":""}`, masked, "x.jsonl:2: nothing to train"},
		{`{"text":"x"}`, Options{MaxLength: 9, VocabSize: 100}, "token 120 is outside of the model's vocabulary of 100"},
		{strings.Repeat(good, 1000) + "{", masked, "x.jsonl:1001: malformed JSON"},
	} {
		if _, err := load(t, c.text, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q: error %v, want %q", c.text, err, c.want)
		}
	}
	if _, err := Load(context.Background(), t.TempDir(), letters{}, masked); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("folder: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	path := filepath.Join(t.TempDir(), "x.jsonl")
	if err := os.WriteFile(path, []byte(strings.Repeat(good, 10000)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(ctx, path, letters{}, masked); err == nil {
		t.Error("a cancelled context is ignored")
	}
}

// TestOrder: examples stay in the order of the lines, however many workers
// there are.
func TestOrder(t *testing.T) {
	var b strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&b, "{\"text\":\"%d\"}\n", i)
	}
	s, err := load(t, b.String(), masked)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		var digits []byte
		e := s.Example(i)
		for _, id := range e.Tokens[1 : len(e.Tokens)-1] {
			digits = append(digits, byte(id))
		}
		if string(digits) != fmt.Sprint(i) {
			t.Fatalf("example %d is %s", i, digits)
		}
	}
	again, err := load(t, b.String(), masked)
	if err != nil || again.Hash() != s.Hash() {
		t.Errorf("hash %s, then %s (%v)", s.Hash(), again.Hash(), err)
	}
	other, err := load(t, strings.Replace(b.String(), "1", "2", 1), masked)
	if err != nil || other.Hash() == s.Hash() {
		t.Errorf("other text has the same hash (%v)", err)
	}
}

func TestPack(t *testing.T) {
	s, err := load(t, "{\"prompt\":\"x\",\"completion\":\"yz\"}\n{\"prompt\":\"\",\"completion\":\"u\"}\n", masked)
	if err != nil {
		t.Fatal(err)
	}
	var b Batch
	s.Pack([]int32{1, 0, 1}, &b) // fills memory that the next call reuses
	s.Pack([]int32{0, 1}, &b)
	want := Batch{
		Tokens:    []int32{bos, 'x', 'y', 'z', eos, bos, 'u', eos},
		Positions: []int32{0, 1, 2, 3, 4, 0, 1, 2},
		Bounds:    []int32{0, 5, 8},
		Rows:      []int32{1, 2, 3, 5, 6},
		Targets:   []int32{'y', 'z', eos, 'u', eos},
	}
	if fmt.Sprint(b) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", b, want)
	}
	if tokens, rows, n := s.Size([]int32{0, 1}); tokens != 8 || rows != 5 || n != 2 {
		t.Errorf("size %d, %d, %d", tokens, rows, n)
	}
}

func TestLoader(t *testing.T) {
	const n = 21
	var want [][]int32
	for _, s := range [][2]int{{8, 1}, {4, 2}, {2, 4}, {1, 8}} {
		l := NewLoader(n, LoaderOptions{Seed: 5, Shuffle: true, BatchSize: s[0], Accumulate: s[1]})
		if l.StepsPerEpoch() != 3 {
			t.Fatalf("%d steps an epoch", l.StepsPerEpoch())
		}
		var got [][]int32
		for step := range 9 {
			w := l.Window(step)
			for i, m := range w {
				if len(m) > s[0] || len(m) < s[0] && i != len(w)-1 {
					t.Errorf("%v: step %d: micro-batch %d has %d examples", s, step, i, len(m))
				}
			}
			got = append(got, slices.Concat(w...))
		}
		if want == nil {
			want = got
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v: %v, want %v", s, got, want)
		}
		// Any step can be asked for at any time.
		if fmt.Sprint(slices.Concat(l.Window(1)...)) != fmt.Sprint(want[1]) {
			t.Errorf("%v: step 1 differs the second time", s)
		}
	}
	for epoch := range 3 {
		all := slices.Concat(want[3*epoch : 3*epoch+3]...)
		slices.Sort(all)
		for i, v := range all {
			if int(v) != i {
				t.Fatalf("epoch %d visits %v", epoch, all)
			}
		}
	}
	if fmt.Sprint(want[0]) == fmt.Sprint(want[3]) {
		t.Error("two epochs have the same order")
	}
	plain := NewLoader(n, LoaderOptions{BatchSize: 4, Accumulate: 2})
	if got := fmt.Sprint(plain.Window(5)); got != "[[16 17 18 19] [20]]" {
		t.Errorf("last window %s", got)
	}
	if p := plain.Position(4); p != (Position{Epoch: 1, Example: 8}) {
		t.Errorf("position %+v", p)
	}
}

func TestCapacity(t *testing.T) {
	var b strings.Builder
	for i := range 23 {
		fmt.Fprintf(&b, "{\"prompt\":\"%s\",\"completion\":\"%s\"}\n", strings.Repeat("x", i*7%11), strings.Repeat("y", 1+i*5%13))
	}
	s, err := load(t, b.String(), masked)
	if err != nil {
		t.Fatal(err)
	}
	for _, shuffle := range []bool{false, true} {
		l := NewLoader(s.Len(), LoaderOptions{Seed: 1, Shuffle: shuffle, BatchSize: 3, Accumulate: 2})
		var tokens, rows, n int
		for step := range 10 {
			for _, m := range l.Window(step) {
				var batch Batch
				s.Pack(m, &batch)
				tokens, rows, n = max(tokens, len(batch.Tokens)), max(rows, len(batch.Rows)), max(n, len(batch.Bounds)-1)
			}
		}
		if a, b, c := l.Capacity(s, 10); a != tokens || b != rows || c != n {
			t.Errorf("shuffle %v: capacity %d, %d, %d, want %d, %d, %d", shuffle, a, b, c, tokens, rows, n)
		}
		// So many steps that some shuffled batch comes near the largest one.
		a, b, c := l.Capacity(s, 1<<40)
		nearly, nearlyRows, _ := l.Capacity(s, 5000)
		if over := float64(a) / float64(nearly); over < 1 || over > 1.3 || b < nearlyRows || c != n {
			t.Errorf("shuffle %v: capacity of very many steps %d, %d, %d; of 5000 %d, %d, %d", shuffle, a, b, c, nearly, nearlyRows, n)
		}
	}
}

// TestGolden compares tokens and labels with those of PEFT's data loader.
func TestGolden(t *testing.T) {
	golden := "../../shared/golden/stories260k"
	b, err := os.ReadFile(filepath.Join(golden, "golden.json"))
	if err != nil {
		t.Skip("no ../shared/golden here: the golden values are not part of the project")
	}
	var want struct {
		Tokens []int32 `json:"first_tokens"`
		Labels []int32 `json:"first_labels"`
	}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.Load("../../shared/models/stories260k")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Load(context.Background(), filepath.Join(golden, "train.jsonl"), tok, Options{MaskPrompt: true, MaxLength: 512})
	if err != nil {
		t.Fatal(err)
	}
	e := s.Example(0)
	start := slices.IndexFunc(want.Labels, func(l int32) bool { return l != -100 })
	if !slices.Equal(e.Tokens, want.Tokens) || e.Start != start || s.Len() != 64 {
		t.Errorf("%d examples; first %v from %d, want %v from %d", s.Len(), e.Tokens, e.Start, want.Tokens, start)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"text":"x"}`), uint8(0))
	f.Add([]byte("{\"prompt\":\"x\",\"completion\":\"y\"}\n{\"prompt\":\"xa\",\"completion\":\"b\"}"), uint8(1))
	f.Add([]byte("{\"text\":1}\n[]\n\"\\ud800\""), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, mode uint8) {
		o := Options{MaskPrompt: mode&1 != 0, MaxLength: 20, TooLong: []TooLong{Fail, Truncate, Drop}[mode%3]}
		s, err := read(context.Background(), strings.NewReader(string(b)), int64(len(b)), letters{}, o)
		if err != nil {
			return
		}
		for i := range s.Len() {
			if e := s.Example(i); e.Start < 1 || len(e.Tokens) <= e.Start || len(e.Tokens) > 20 {
				t.Fatalf("example %d: %+v", i, e)
			}
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	path := filepath.Join(b.TempDir(), "x.jsonl")
	line := `{"prompt":"` + strings.Repeat("x y ", 50) + `","completion":"` + strings.Repeat("z ", 50) + `"}` + "\n"
	if err := os.WriteFile(path, []byte(strings.Repeat(line, 2000)), 0o644); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(2000 * len(line)))
	n := 0
	for b.Loop() {
		s, err := Load(context.Background(), path, letters{}, Options{MaskPrompt: true, MaxLength: 1000})
		if err != nil {
			b.Fatal(err)
		}
		n += s.Tokens()
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "tokens/s")
}
