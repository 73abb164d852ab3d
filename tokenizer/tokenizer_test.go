package tokenizer

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The cases in testdata are what Hugging Face's tokenizers 0.22 makes of each
// text with the tokenizer.json beside them. testdata/generate.py wrote both.
type goldenCase struct {
	Text    string  `json:"text"`
	IDs     []int32 `json:"ids"`
	Plain   bool    `json:"plain"` // the post-processor adds nothing
	Decoded string  `json:"decoded"`
	All     string  `json:"all"` // with special tokens
}

func families(t testing.TB) map[string]*Tokenizer {
	t.Helper()
	dir := "testdata"
	if d := os.Getenv("TOKENIZER_CASES"); d != "" { // a larger set, made by the same script
		dir = d
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.cases.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases in %s: %v", dir, err)
	}
	out := map[string]*Tokenizer{}
	for _, f := range files {
		b, err := os.ReadFile(strings.Replace(f, ".cases.", ".", 1))
		if err != nil {
			t.Fatal(err)
		}
		tok, err := Parse(b, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		out[f] = tok
	}
	return out
}

func readCases(t testing.TB, path string) []goldenCase {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var cases []goldenCase
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	return cases
}

func TestHuggingFace(t *testing.T) {
	for path, tok := range families(t) {
		wrong := 0
		cases := readCases(t, path)
		for _, c := range cases {
			ids := tok.Encode(c.Text, true)
			decoded, all := tok.Decode(c.IDs, true), tok.Decode(c.IDs, false)
			if !slices.Equal(ids, c.IDs) || decoded != c.Decoded || all != c.All {
				if wrong++; wrong <= 5 {
					t.Errorf("%s: %q:\nids     %v\nwant    %v\ndecoded %q\nwant    %q\nall     %q\nwant    %q", path, c.Text, ids, c.IDs, decoded, c.Decoded, all, c.All)
				}
			}
			if plain := tok.Encode(c.Text, false); (len(plain) == len(ids)) != c.Plain {
				t.Errorf("%s: %q: %d ids without the post-processor, %d with", path, c.Text, len(plain), len(ids))
			}
		}
		if wrong > 0 {
			t.Errorf("%s: %d of %d texts are wrong", path, wrong, len(cases))
		}
		if err := tok.Err(); err != nil {
			t.Error(err)
		}
	}
}

// TestConcurrent encodes from several goroutines at once; results must not
// depend on what is cached.
func TestConcurrent(t *testing.T) {
	for path, tok := range families(t) {
		cases := readCases(t, path)
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range cases {
					c := cases[(i*7+g*31)%len(cases)]
					if got := tok.Encode(c.Text, true); !slices.Equal(got, c.IDs) {
						t.Errorf("%s: %q: %v, want %v", path, c.Text, got, c.IDs)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestStories(t *testing.T) {
	shared := "../../shared"
	tok, err := Load(filepath.Join(shared, "models", "stories260k"))
	if err != nil {
		t.Skip("no ../shared/models here: the model is not part of the project")
	}
	b, err := os.ReadFile(filepath.Join(shared, "golden", "stories260k", "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		First []int32 `json:"first_tokens"`
	}
	if err := json.Unmarshal(b, &golden); err != nil {
		t.Fatal(err)
	}
	lines, err := os.ReadFile(filepath.Join(shared, "golden", "stories260k", "train.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var line struct{ Prompt, Completion string }
	if err := json.Unmarshal(lines[:strings.IndexByte(string(lines), '\n')], &line); err != nil {
		t.Fatal(err)
	}
	eos, ok := tok.EOS()
	if got := append(tok.Encode(line.Prompt+line.Completion, true), eos); !ok || !slices.Equal(got, golden.First) {
		t.Errorf("got  %v\nwant %v", got, golden.First)
	}
}

func TestDecodeUnknownIDs(t *testing.T) {
	for path, tok := range families(t) {
		for _, ids := range [][]int32{{-1}, {1 << 30}, {int32(tok.Size())}, {}, nil} {
			if got := tok.Decode(ids, true); len(ids) > 0 && !strings.Contains(got, replacement) {
				t.Errorf("%s: %v decodes to %q", path, ids, got)
			}
		}
		if tok.Piece(-5) != "" || tok.Piece(int32(tok.Size())) != "" {
			t.Errorf("%s: ids outside have pieces", path)
		}
	}
}

// TestLongLine: a megabyte without a space takes n log n, not n².
func TestLongLine(t *testing.T) {
	for path, tok := range families(t) {
		began := time.Now()
		ids := tok.Encode(strings.Repeat("abcdefgh", 1<<17), false)
		if took := time.Since(began); took > 20*time.Second || len(ids) == 0 {
			t.Errorf("%s: %d ids in %v", path, len(ids), took)
		}
	}
}

// good is a tokenizer.json.
const good = `{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]}}`

func TestParseErrors(t *testing.T) {
	const double = `{"type":"Replace","pattern":{"String":"a"},"content":"aa"}`
	const template = `{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}}]}`
	doublings := strings.TrimSuffix(strings.Repeat(double+",", 20), ",")
	for _, c := range []struct{ from, to, want string }{
		{good, ``, "not valid JSON"},
		{good, `[]`, "not a tokenizer: want object, found array"},
		{good, `{"model":[]}`, "model: want object, found array"},
		{`"merges":[["a","b"]]`, `"merges":{}`, "model.merges: want array, found object"},
		{`"BPE"`, `"WordPiece"`, `model.type: "WordPiece" is not implemented`},
		{`"ab":2`, `"ab":1`, `"ab" and "b" have the same id 1`},
		{`"ab":2`, `"ab":-2`, "id -2 is out of range"},
		{`"ab":2`, `"ab":99999999999`, "out of range"},
		{`"ab":2`, `"x":2`, `model.merges[0]: "ab" is not in model.vocab`},
		{`["a","b"]`, `["a","c"]`, `model.merges[0]: "c" is not in model.vocab`},
		{`["a","b"]`, `["a"]`, "model.merges[0]: want two pieces"},
		{`["a","b"]`, `"a  b"`, "model.merges[0]"},
		{`"merges"`, `"unk_token":"?","merges"`, `model.unk_token: "?" is not in model.vocab`},
		{`"merges"`, `"dropout":0.1,"merges"`, "model.dropout"},
		{`"merges"`, `"end_of_word_suffix":"</w>","merges"`, "model.end_of_word_suffix"},
		{`{"model"`, `{"normalizer":{"type":"Precompiled"},"model"`, `normalizer: normalizer "Precompiled" is not implemented`},
		{`{"model"`, `{"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Bert"}]},"model"`, `pre_tokenizer.pretokenizers[0]: pre-tokenizer "Bert"`},
		{`{"model"`, `{"pre_tokenizer":{"type":"Split","behavior":"Isolated","pattern":{"Regex":"("}},"model"`, "pre_tokenizer.pattern"},
		{`{"model"`, `{"pre_tokenizer":{"type":"Split","behavior":"Sideways","pattern":{"String":"x"}},"model"`, `behavior: "Sideways"`},
		{`{"model"`, `{"post_processor":{"type":"BertProcessing"},"model"`, `post-processor "BertProcessing"`},
		{`{"model"`, `{"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"q"}}]},"model"`, `"q" is not in special_tokens`},
		{`{"model"`, `{"post_processor":{"type":"Sequence","processors":[` + template + `,{"type":"ByteLevel"},` + template + `]},"model"`,
			"post_processor.processors[2]: a second TemplateProcessing, after post_processor.processors[0], is not implemented"},
		{`{"model"`, `{"decoder":{"type":"CTC"},"model"`, `decoder "CTC"`},
		{`{"model"`, `{"added_tokens":[{"id":7,"content":"z"}],"model"`, `"z" has id 7, but its place in the vocabulary is 3`},
		{`{"model"`, `{"added_tokens":[{"id":3,"content":"z"},{"id":4,"content":"z"}],"model"`, "is there twice"},
		{`{"model"`, `{"version":"2.0","model"`, `version: "2.0"`},
		{`,"merges":[["a","b"]]`, ``, "model.merges: missing"},
		{good, `{"added_tokens":[{"id":3,"content":"z"}],"model":{"vocab":{"a":0,"b":1,"ab":3},"merges":[]}}`, `"z" has no place: model.vocab has 3 pieces with ids up to 3`},
		{`{"model"`, `{"normalizer":{"type":"Prepend","prepend":"` + strings.Repeat("a", 300) + `"},"model"`, "normalizer.prepend: 300 bytes long"},
		{`{"model"`, `{"normalizer":{"type":"Sequence","normalizers":[` + doublings + `]},"model"`, "normalizer.normalizers[8]: the replacements could make a text more than 256 times longer"},
		{`{"model"`, `{"decoder":{"type":"Sequence","decoders":[` + doublings + `]},"model"`, "decoder.decoders[8]: the replacements"},
	} {
		_, err := Parse([]byte(strings.Replace(good, c.from, c.to, 1)), nil, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "tokenizer.json: ") {
			t.Errorf("%s → %s: error %v, want %q", c.from, c.to, err, c.want)
		}
	}
	for content, want := range map[string]string{
		`[]`:                   "not a tokenizer: want object, found array",
		`{"bos_token":5}`:      "bos_token: want string, found number",
		`{"eos_token":"</s>"}`: `eos_token: "</s>" is not in tokenizer.json`,

		`{"added_tokens_decoder":{"0":{"content":"a"},"3":{"content":"<x>"}}}`: `added_tokens_decoder: "<x>" is not in tokenizer.json`,
		`{"extra_special_tokens":["a","<x>"]}`:                                 `extra_special_tokens: "<x>" is not in tokenizer.json`,
		`{"extra_special_tokens":{"image_token":"<x>"}}`:                       `extra_special_tokens: "<x>" is not in tokenizer.json`,
		`{"additional_special_tokens":[{"content":"<x>"}]}`:                    `additional_special_tokens: "<x>" is not in tokenizer.json`,
		`{"additional_special_tokens":"<x>"}`:                                  "additional_special_tokens: want array, found string",
		`{"split_special_tokens":true}`:                                        "split_special_tokens: true is not implemented",
	} {
		for i, name := range []string{"tokenizer_config.json: ", "special_tokens_map.json: "} {
			var files [2][]byte
			files[i] = []byte(content)
			if _, err := Parse([]byte(good), files[0], files[1]); err == nil || !strings.HasPrefix(err.Error(), name+want) {
				t.Errorf("%s: error %v, want %q", content, err, name+want)
			}
		}
	}
}

// TestEnds: which tokens begin and end a sequence, as AutoTokenizer of
// transformers 5.24 has it.
func TestEnds(t *testing.T) {
	for _, c := range []struct {
		config, special string // "": not there
		bos, eos        int32  // -1: none
	}{
		{`{"eos_token":{"content":"b"},"bos_token":"a"}`, ``, 0, 1},
		{`{}`, `{"eos_token":"b"}`, -1, 1},
		{``, `{"eos_token":{"content":"b","lstrip":false}}`, -1, 1},
		{`{"eos_token":"a","additional_special_tokens":["a",{"content":"b"}],"extra_special_tokens":{},"split_special_tokens":false}`, ``, -1, 0},
		{`{"eos_token":"a","additional_special_tokens":null,"extra_special_tokens":{"end":"b"}}`, ``, -1, 0},
		{`{"bos_token":"a","eos_token":"a"}`, `{"eos_token":"b"}`, 0, 1},
		{`{"eos_token":"a","added_tokens_decoder":{"0":{"content":"a"}}}`, `{"eos_token":"b"}`, -1, 0},
		{`{"eos_token":"a","added_tokens_decoder":{}}`, `{"eos_token":"b"}`, -1, 0},
	} {
		dir := t.TempDir()
		for name, content := range map[string]string{"tokenizer.json": good, "tokenizer_config.json": c.config, "special_tokens_map.json": c.special} {
			if content == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		tok, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		bos, _ := tok.BOS()
		if eos, _ := tok.EOS(); bos != c.bos || eos != c.eos {
			t.Errorf("%s, %s: BOS %d, EOS %d, want %d, %d", c.config, c.special, bos, eos, c.bos, c.eos)
		}
	}
}

// TestSlowPattern: a pattern that takes exponential time ends, and Err says so.
func TestSlowPattern(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as the limit")
	}
	tok, err := Parse([]byte(`{"pre_tokenizer":{"type":"Split","behavior":"Isolated","pattern":{"Regex":"(a+)+$"}},`+
		`"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}}`), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	tok.Encode(strings.Repeat("a", 40)+"b", false)
	if tok.Err() == nil {
		t.Error("no error")
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.json")
	for _, p := range files {
		if b, err := os.ReadFile(p); err == nil && !strings.Contains(p, ".cases.") {
			f.Add(b, "Hello, world 123  \n")
		}
	}
	f.Add([]byte(`{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]}}`), "abab")
	f.Fuzz(func(t *testing.T, b []byte, text string) {
		if strings.Contains(string(b), "Regex") {
			t.Skip("patterns of their own are bounded by time only")
		}
		tok, err := Parse(b, nil, nil)
		if err != nil {
			return
		}
		ids := tok.Encode(text, true)
		for _, id := range ids {
			if id < 0 || int(id) >= tok.Size() {
				t.Fatalf("id %d of %d", id, tok.Size())
			}
		}
		tok.Decode(ids, false)
	})
}

func BenchmarkEncode(b *testing.B) {
	for path, tok := range families(b) {
		var text strings.Builder
		for _, c := range readCases(b, path) {
			text.WriteString(c.Text + "\n")
		}
		s := strings.Repeat(text.String(), 10)
		b.Run(filepath.Base(path), func(b *testing.B) {
			n := 0
			b.SetBytes(int64(len(s)))
			for b.Loop() {
				n += len(tok.Encode(s, false))
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}

func ExampleTokenizer() {
	tok, err := Load("../configs/demo/model")
	if err != nil {
		fmt.Println(err)
		return
	}
	ids := tok.Encode("Where does the fox live?", true)
	fmt.Println(tok.Piece(ids[0]), tok.Decode(ids, true))
	// Output: <s> Where does the fox live?
}
