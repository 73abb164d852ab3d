package tokenizer

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/unicode/norm"
)

// TestCorners: what Hugging Face's tokenizers 0.23.3 gives where one would
// not expect it.
func TestCorners(t *testing.T) {
	const vocab = `"model":{"type":"BPE","unk_token":"?","fuse_unk":true,"byte_fallback":true,"merges":[],` +
		`"vocab":{"?":0,"a":1,"▁":2,"<0xC3>":3,"<0xA9>":4,"\n":5,"▁▁a▁":6}}`
	const without = `"pre_tokenizer":{"type":"Split","pattern":{"Regex":`
	const first = `"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true},`
	for _, c := range []struct {
		name, file, text string
		ids              []int32
	}{
		{"an unknown token waits until bytes have passed", "", "xéx", []int32{3, 4, 0}},
		{"and for a character of the vocabulary", "", "xaé", []int32{0, 1, 3, 4}},
		{"a mark before the text", first, "a\na", []int32{2, 1, 5, 1}},
		{"none where its beginning was stripped", first + `"normalizer":{"type":"Strip","strip_left":true},`, " a", []int32{1}},
		{"none where its beginning was replaced by nothing", first + `"normalizer":{"type":"Replace","pattern":{"String":"\n"},"content":""},`, "\na", []int32{1}},
		{"none where two characters became one", first + `"normalizer":{"type":"Replace","pattern":{"String":"xx"},"content":"a"},`, "xxa", []int32{1, 1}},
		{"a token takes the white space that begins the next", `"added_tokens":[{"id":7,"content":"b\n","rstrip":true},{"id":8,"content":"\n\n","lstrip":true}],`, "b\n\n\na", []int32{7, 1}},
		{"lines begin and end within a text", without + `"^a$"},"behavior":"Removed"},`, "a\naa\na", []int32{5, 1, 1, 5}},
		{"some numbers are letters of words", without + `"\\w"},"behavior":"Removed"},`, "²³¹¼½¾\n", []int32{5}},
		{"but not in a class", without + `"[\\w]"},"behavior":"Removed"},`, "²³¹¼½¾\n", []int32{0, 5}},
	} {
		tok, err := Parse([]byte("{"+c.file+vocab+"}"), nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := tok.Encode(c.text, true); !slices.Equal(got, c.ids) {
			t.Errorf("%s: %q: %v, want %v", c.name, c.text, got, c.ids)
		}
	}
	tok, err := Parse([]byte(`{"decoder":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always"},`+vocab+`}`), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := tok.Decode([]int32{6, 6}, false); got != "a  a " {
		t.Errorf("all marks of the first piece are dropped: %q", got)
	}
}

// TestManyMarks: x/text limits runs of combining marks to 30, normalization
// forms do not.
func TestManyMarks(t *testing.T) {
	acute := strings.Repeat("\u0301", 40)
	for _, c := range []struct {
		f          norm.Form
		text, want string
	}{
		{norm.NFC, "e" + acute, "é" + acute[2:]},
		{norm.NFD, "é" + acute, "e\u0301" + acute},
		{norm.NFKC, "ﬁ" + acute, "fí" + acute[2:]},
		{norm.NFC, "a" + acute + "\u0323", "ạ" + acute},
	} {
		if got, _ := (form{c.f}).normalize(c.text); got != c.want {
			t.Errorf("form %d of %+q: %+q, want %+q", c.f, c.text, got, c.want)
		}
	}
	alphabet := []rune("aeoqЖ각가한 \u1100\u1161\u11a8\u0301\u0302\u0323\u0307\u0344\u093c\u0928\u0bc6\u0bbeﬁéệ\u0f71\u0f72\u0fb7Ω\ufb2c")
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		s := make([]rune, rng.IntN(9))
		for i := range s {
			s[i] = alphabet[rng.IntN(len(alphabet))]
		}
		for _, f := range []norm.Form{norm.NFC, norm.NFD, norm.NFKC, norm.NFKD} {
			if got, want := (form{f}).unbounded(string(s)), f.String(string(s)); got != want {
				t.Fatalf("form %d of %+q: %+q, want %+q", f, string(s), got, want)
			}
		}
	}
}

// TestWhiteSpaceTakenOnce: tokens that take white space along look at it once.
func TestWhiteSpaceTakenOnce(t *testing.T) {
	tok, err := Parse([]byte(`{"added_tokens":[{"id":1,"content":"  ","rstrip":true}],"model":{"vocab":{"a":0},"merges":[]}}`), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	tok.Encode(strings.Repeat(" ", 1<<20), false)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("%v for a megabyte", took)
	}
}

// TestDialect: what Oniguruma reads differently is refused.
func TestDialect(t *testing.T) {
	for _, expr := range []string{`[[:alpha:]]+`, `[a-z&&[^c]]`, `[a[bc]]`, `[]a]`, `(?m).`, `(?s).`, `(?<n>a)`, `\h`, `\X`, `\bx`, `a{,2}`, `\d{2}+`} {
		if _, err := translate(expr); err == nil || !strings.Contains(err.Error(), "not implemented") {
			t.Errorf("%s: error %v", expr, err)
		}
	}
	for expr, want := range map[string]string{
		`[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}`: `[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}`,
		`(?i:a)(?=b)(?<!c)[\]x]\{`:             `(?i:a)(?=b)(?<!c)[\]x]\{`,
		`\w`:                                   `[\p{L}\p{Nl}\p{Other_Alphabetic}\p{M}\p{Nd}\p{Pc}²³¹¼½¾]`,
		`[\w]`:                                 `[\p{L}\p{Nl}\p{Other_Alphabetic}\p{M}\p{Nd}\p{Pc}]`,
	} {
		if got, err := translate(expr); err != nil || got != want {
			t.Errorf("%s: %s, error %v", expr, got, err)
		}
	}
}
