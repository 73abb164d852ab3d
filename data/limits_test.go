package data

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestJobs: lines are handed out in stretches that are bounded both in number
// and in bytes, and none is lost.
func TestJobs(t *testing.T) {
	for _, c := range []struct {
		title       string
		lines, size int
	}{{"short", 1000, 20}, {"long", 40, 300 << 10}} {
		line := strings.Repeat("x", c.size-1) + "\n"
		work, order := make(chan *job, 100), make(chan *job, 100)
		split(context.Background(), strings.NewReader(strings.Repeat(line, c.lines)), 0, &encoder{Options: Options{Format: Text}}, work, order)
		close(order)
		next := 1
		for j := range order {
			n := 0
			for _, l := range j.lines {
				n += len(l)
			}
			if len(j.lines) > linesPerJob || n > bytesPerJob+c.size {
				t.Errorf("%s lines: a job of %d lines, %d bytes", c.title, len(j.lines), n)
			}
			if j.first != next {
				t.Errorf("%s lines: a job from line %d, want %d", c.title, j.first, next)
			}
			next += len(j.lines)
		}
		if next != c.lines+1 {
			t.Errorf("%s lines: %d of %d", c.title, next-1, c.lines)
		}
	}
}

// TestLineNumbers: an error names the right line whatever the lines before it
// are like, and the first of several wins.
func TestLineNumbers(t *testing.T) {
	short, long := `{"text":"x"}`+"\n", `{"text":"`+strings.Repeat("x", 400<<10)+`"}`+"\n"
	for _, c := range []struct{ before, after string }{
		{strings.Repeat(short, 700), ""},
		{strings.Repeat("\n", 300) + short, ""},
		{strings.Repeat(long, 9), ""},
		{short, strings.Repeat("{\n", 2000)},
	} {
		want := fmt.Sprintf("x.jsonl:%d: malformed JSON", strings.Count(c.before, "\n")+1)
		if _, err := load(t, c.before+"{]\n"+c.after, Options{MaxLength: 1 << 20}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// TestBrokenReader: an error of the disk is one of the line it hit.
func TestBrokenReader(t *testing.T) {
	broken := errors.New("input/output error")
	good := `{"text":"x"}` + "\n"
	r := io.MultiReader(strings.NewReader(strings.Repeat(good, 500)), &failing{broken})
	if _, err := read(context.Background(), r, 0, letters{}, masked); !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "501: ") {
		t.Errorf("error %v", err)
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// endless is a file that never ends; it cancels after a while.
type endless struct {
	line   string
	left   int
	cancel func()
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left--; e.left == 0 {
		e.cancel()
	}
	n := copy(p, strings.Repeat(e.line, len(p)/len(e.line)))
	return n, nil
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := read(ctx, &endless{line: `{"text":"x"}` + "\n", left: 3, cancel: cancel}, 0, letters{}, masked)
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a cancelled read goes on")
	}
}

// TestProgress: bytes only grow, and reach no further than the file.
func TestProgress(t *testing.T) {
	text := strings.Repeat(`{"text":"x"}`+"\n", 2000)
	var seen []int64
	o := masked
	o.Progress = func(done, total int64) {
		if done > total || total != int64(len(text)) {
			t.Errorf("%d of %d bytes", done, total)
		}
		seen = append(seen, done)
	}
	if _, err := load(t, text, o); err != nil || len(seen) < 2 || !slices.IsSorted(seen) || seen[len(seen)-1] != int64(len(text)) {
		t.Errorf("progress %v (%v)", seen, err)
	}
}

// words is a tokenizer with a token for each word. It remembers the longest text
// that it saw, and how many it worked on at a time.
type words struct {
	longest, now, most *atomic.Int64
}

func newWords() words { return words{new(atomic.Int64), new(atomic.Int64), new(atomic.Int64)} }

func (w words) Encode(text string, special bool) []int32 {
	w.most.Store(max(w.most.Load(), w.now.Add(1)))
	defer w.now.Add(-1)
	w.longest.Store(max(w.longest.Load(), int64(len(text))))
	ids := []int32{bos}
	for word := range strings.FieldsSeq(text) {
		ids = append(ids, int32(len(word)))
	}
	return ids
}

func (words) EOS() (int32, bool) { return eos, true }

// TestLongTexts: of a long text no more is tokenized than it takes to see that
// it is too long, and the result is that of the whole.
func TestLongTexts(t *testing.T) {
	const mb = 1 << 20
	short, long := strings.Repeat("xyz ", 3*mb/4), "a b c"+strings.Repeat(" ", 2*mb)+strings.Repeat("x", 2*mb)
	line := func(prompt, completion string) string {
		return fmt.Sprintf("{\"prompt\":%q,\"completion\":%q}\n", prompt, completion)
	}
	for _, c := range []struct {
		title, text string
		how         TooLong
		seen        int // bytes at most
		want        string
	}{
		{"dropped", line("p ", short) + line("p ", "c"), Drop, mb, "[[1 1 1 2]] 1 dropped"},
		{"truncated", line("p ", short), Truncate, mb, "[[1 1 3 3 3 3]] 1 truncated"},
		{"an error", line("p ", short), Fail, mb, "1: over 262"},
		{"a long prompt", line(short, "c"), Truncate, mb, "1: nothing is left to train"},
		{"long words that fit", line("p ", long), Fail, 5 * mb, fmt.Sprintf("[[1 1 1 1 1 %d 2]]", 2*mb)},
		{"long words that just do not", line("p ", long+" d"), Fail, 5 * mb, "1: 8 tokens, data.max_length is 7"},
	} {
		w := newWords()
		limit := 7
		if c.how == Truncate {
			limit = 6
		}
		s, err := read(context.Background(), strings.NewReader(c.text), 0, w, Options{MaskPrompt: true, MaxLength: limit, TooLong: c.how})
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			var all [][]int32
			for i := range s.Len() {
				all = append(all, s.Example(i).Tokens)
			}
			got = fmt.Sprint(all)
			if s.Dropped() > 0 {
				got += fmt.Sprintf(" %d dropped", s.Dropped())
			}
			if s.Truncated() > 0 {
				got += fmt.Sprintf(" %d truncated", s.Truncated())
			}
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %.80s, want %s", c.title, got, c.want)
		}
		if seen := int(w.longest.Load()); seen > c.seen {
			t.Errorf("%s: %d bytes tokenized at once, want at most %d", c.title, seen, c.seen)
		}
	}
}

// TestLongLines: however many processors there are, one long line is under way
// at a time, and all are read.
func TestLongLines(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	w := newWords()
	text := strings.Repeat(`{"text":"`+strings.Repeat("x", longLine)+`"}`+"\n", 6)
	if s, err := read(context.Background(), strings.NewReader(text), 0, w, masked); err != nil || s.Len() != 6 || w.most.Load() != 1 {
		t.Errorf("%d at a time (%v)", w.most.Load(), err)
	}
}

// noEOS is a tokenizer of a model that knows no end of a sequence.
type noEOS struct{ letters }

func (noEOS) EOS() (int32, bool) { return 0, false }

// TestMasks: what is trained where a text is as short as it can be.
func TestMasks(t *testing.T) {
	for _, c := range []struct {
		title, text string
		tok         Tokenizer
		want        string // tokens and start, or an error
	}{
		{"an empty completion", `{"prompt":"x","completion":""}`, letters{}, "1: nothing to train"},
		{"an empty text", `{"text":""}`, letters{}, "1: nothing to train"},
		{"nothing without EOS", `{"prompt":"x","completion":""}`, noEOS{}, "1: nothing to train"},
		{"a single token", `{"text":""}`, noEOS{}, "1: nothing to train"},
		{"one token after BOS", `{"text":"x"}`, noEOS{}, "[1 120] 1"},
		{"EOS in a prompt's end stays", `{"prompt":"x$","completion":"y"}`, letters{}, "[1 120 2 121 2] 3"},
		{"the whole prompt is joined", `{"prompt":"a","completion":"b"}`, letters{}, "[1 300 2] 1"},
		{"escapes", `{"text":"\u0078\n"}`, letters{}, "[1 120 10 2] 1"},
		{"a key twice", `{"text":"x","a":{"text":1},"text":"y"}`, letters{}, `1: the key "text" is there twice`},
		{"the same key deeper", `{"a":{"text":1},"text":"y"}`, letters{}, "[1 121 2] 1"},
		{"a surrogate pair", `{"text":"\\ud800\ud83d\ude00"}`, letters{}, "[1 92 117 100"},
		{"a lone high surrogate", `{"text":"\ud83d"}`, letters{}, `1: byte 10: \ud83d is half`},
		{"a lone low surrogate", `{"text":"x\ude00\ud83d"}`, letters{}, `1: byte 11: \ude00 is half`},
		{"two high surrogates", `{"text":"\ud83d\ud83d\ude00"}`, letters{}, `1: byte 10: \ud83d is half`},
		{"keys have a case", `{"Text":"x","text":"y"}`, letters{}, "[1 121 2] 1"},
	} {
		var got string
		s, err := read(context.Background(), strings.NewReader(c.text), 0, c.tok, masked)
		if err != nil {
			got = err.Error()
		} else {
			got = fmt.Sprint(s.Example(0).Tokens, s.Example(0).Start)
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, want %s", c.title, got, c.want)
		}
	}
}

// TestCounts: what was cut and left out is counted over all jobs.
func TestCounts(t *testing.T) {
	var b strings.Builder
	long := 0
	for i := range 1500 {
		n := 1 + i%7
		if n+2 > 6 {
			long++
		}
		fmt.Fprintf(&b, "{\"text\":%q}\n", strings.Repeat("x", n))
	}
	for _, c := range []struct {
		how                          TooLong
		examples, truncated, dropped int
	}{{Truncate, 1500, long, 0}, {Drop, 1500 - long, 0, long}} {
		s, err := load(t, b.String(), Options{MaxLength: 6, TooLong: c.how})
		if err != nil {
			t.Fatal(err)
		}
		if s.Len() != c.examples || s.Truncated() != c.truncated || s.Dropped() != c.dropped || s.Longest() != 6 {
			t.Errorf("%s: %d examples, %d truncated, %d dropped, longest %d", c.how, s.Len(), s.Truncated(), s.Dropped(), s.Longest())
		}
	}
}

// TestSeeds: equal seeds give equal orders, other seeds others.
func TestSeeds(t *testing.T) {
	order := func(seed uint64) string {
		return fmt.Sprint(NewLoader(50, LoaderOptions{Seed: seed, Shuffle: true, BatchSize: 50, Accumulate: 1}).Window(0))
	}
	one, again, two := order(1), order(1), order(2)
	if one != again || one == two {
		t.Errorf("seed 1: %s and %s, seed 2: %s", one, again, two)
	}
}
