package data

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"graft/internal/files"
	"graft/internal/strictjson"
)

// Format says what the lines of a file hold.
type Format string

// The formats, one JSON object a line. Auto takes the one that the first line
// has the keys of.
const (
	Auto       Format = "auto"
	Text       Format = "text"       // {"text": …}
	Completion Format = "completion" // {"prompt": …, "completion": …}
)

// TooLong says what happens to an example over MaxLength.
type TooLong string

// Fail is an error, Truncate cuts the end off, Drop leaves the example out.
const (
	Fail     TooLong = "error"
	Truncate TooLong = "truncate"
	Drop     TooLong = "drop"
)

// Options say how a file is read.
type Options struct {
	Format     Format
	MaskPrompt bool // train completions only
	MaxLength  int  // tokens
	TooLong    TooLong
	VocabSize  int                     // tokens must be below; 0: any
	Progress   func(done, total int64) // bytes; may be nil
}

// maxLine bounds one line, so that a file without line ends cannot take all
// memory.
const maxLine = 64 << 20

// Tokenizing takes some 50 bytes of memory for each of a text's, so that long
// ones get care: of lines over longLine there is one at a time, on all
// processors together, and of texts over longText no more is tokenized than it
// takes to see that they are over MaxLength.
const (
	longLine = 4 << 20
	longText = 1 << 20
)

// job is a stretch of lines that one goroutine tokenizes.
type job struct {
	first    int // number of the first line
	lines    [][]byte
	examples []encoded
	err      error
	long     bool // its last line is over longLine
	done     chan struct{}
}

type encoded struct {
	Example
	truncated, dropped bool
}

// A job takes so many lines, or fewer where they are long, so that the jobs
// under way hold little of a large file.
const (
	linesPerJob = 256
	bytesPerJob = 1 << 20
)

// Load reads and tokenizes a file, on all processors. Errors name the file and
// the line.
func Load(ctx context.Context, path string, tok Tokenizer, o Options) (*Set, error) {
	f, err := files.Open(path)
	if err != nil {
		return nil, fmt.Errorf("data: %w; want a file of JSON lines", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	s, err := read(ctx, f, info.Size(), tok, o)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	return s, nil
}

// read tokenizes r. Its errors start with a line number, or a space.
func read(ctx context.Context, r io.Reader, size int64, tok Tokenizer, o Options) (*Set, error) {
	ctx, cancel := context.WithCancel(ctx)
	e := &encoder{tok: tok, Options: o}
	workers := runtime.GOMAXPROCS(0)
	work, order := make(chan *job, workers), make(chan *job, 4*workers)
	var wg sync.WaitGroup
	defer func() {
		cancel()
		wg.Wait()
	}()
	for range workers {
		wg.Go(func() {
			for j := range work {
				j.run(e)
				close(j.done)
			}
		})
	}
	hash := sha256.New()
	wg.Go(func() {
		defer close(work)
		defer close(order)
		split(ctx, io.TeeReader(r, hash), size, e, work, order)
	})
	s := &Set{bounds: []int64{0}}
	for j := range order {
		<-j.done
		for _, x := range j.examples {
			if x.truncated {
				s.truncated++
			}
			if x.dropped {
				s.dropped++
				continue
			}
			if err := s.add(x.Example); err != nil {
				return nil, err
			}
		}
		if j.err != nil {
			return nil, j.err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.Len() == 0 {
		if s.dropped > 0 {
			return nil, fmt.Errorf(" all %d examples are over data.max_length (%d tokens) and were dropped", s.dropped, o.MaxLength)
		}
		return nil, errors.New(" no examples: the file is empty")
	}
	hash.Sum(s.file[:0])
	return s, nil
}

// split cuts the input into jobs and hands each to a worker and, in order, to
// the collector.
func split(ctx context.Context, r io.Reader, size int64, e *encoder, work, order chan<- *job) {
	b := bufio.NewReaderSize(r, 1<<20)
	var read int64
	line := 0
	send := func(j *job) bool {
		j.done = make(chan struct{})
		select {
		case <-ctx.Done():
			return false
		case order <- j:
		}
		work <- j
		return true
	}
	for {
		j := &job{first: line + 1}
		var err error
		for start := read; len(j.lines) < linesPerJob && read-start < bytesPerJob && err == nil; {
			var text []byte
			text, err = readLine(b, func() {
				e.long.Lock() // until a worker is done with the job
				j.long = true
			})
			read += int64(len(text))
			if err == nil || len(text) > 0 {
				if line++; line == 1 {
					text = bytes.TrimPrefix(text, []byte("\ufeff"))
				}
				if e.Format == Auto || e.Format == "" { // only here, before any worker has a line
					if len(bytes.TrimSpace(text)) > 0 {
						e.Format = detect(text)
					}
				}
				j.lines = append(j.lines, text)
			}
		}
		if err != nil && err != io.EOF {
			j.err = fmt.Errorf("%d: %w", line+1, err)
		}
		if !send(j) {
			return
		}
		if e.Progress != nil {
			e.Progress(read, size)
		}
		if err != nil {
			return
		}
	}
}

// readLine returns a line with its end. It calls long before it goes on with one
// over longLine.
func readLine(b *bufio.Reader, long func()) ([]byte, error) {
	var line []byte
	for {
		part, err := b.ReadSlice('\n')
		if n := len(line); n <= longLine && n+len(part) > longLine {
			long()
		}
		line = append(line, part...)
		if len(line) > maxLine {
			return nil, fmt.Errorf("the line is over %d MiB: want one JSON object a line", maxLine>>20)
		}
		if err != bufio.ErrBufferFull {
			return line, err
		}
	}
}

// detect returns the format whose keys a line has. What is wrong with the line
// is said when it is parsed.
func detect(line []byte) Format {
	var keys map[string]json.RawMessage
	if json.Unmarshal(line, &keys) == nil && keys["prompt"] == nil && keys["completion"] == nil && keys["text"] != nil {
		return Text
	}
	return Completion
}

func (j *job) run(e *encoder) {
	defer func() {
		j.lines = nil
		if j.long {
			e.long.Unlock()
		}
	}()
	if j.err != nil && len(j.lines) == 0 {
		return
	}
	for i, line := range j.lines {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		x, err := e.line(line)
		if err != nil {
			j.err = fmt.Errorf("%d: %w", j.first+i, err)
			return
		}
		j.examples = append(j.examples, x)
	}
}

var errNothing = errors.New("nothing to train: the completion is empty, or the text has a single token")

// encoder turns lines into examples.
type encoder struct {
	Options
	tok  Tokenizer
	long sync.Mutex // held while a long line is under way
}

// line parses and tokenizes one line.
func (e *encoder) line(line []byte) (encoded, error) {
	if !utf8.Valid(line) {
		return encoded{}, errors.New("not valid UTF-8")
	}
	keys, err := object(line)
	if err != nil {
		return encoded{}, err
	}
	var prompt, full string
	if e.Format == Text {
		if full, err = field(keys, "text"); err != nil {
			return encoded{}, err
		}
	} else {
		var completion string
		if prompt, err = field(keys, "prompt"); err != nil {
			return encoded{}, err
		}
		if completion, err = field(keys, "completion"); err != nil {
			return encoded{}, err
		}
		full = prompt + completion
		if completion == "" && e.MaskPrompt {
			full = "" // an end alone is nothing to learn
		}
	}
	if full == "" {
		return encoded{}, errNothing
	}
	return e.limit(e.encode(prompt, full))
}

// tokens tokenizes a text, or the beginning of a long one that has over twice
// MaxLength tokens: what follows changes the last few of them at most. It also
// returns where that ends. A text that is nearly all white space is tokenized
// whole.
func (e *encoder) tokens(text string) (ids []int32, end int) {
	for n := max(longText, 16*e.MaxLength); e.MaxLength > 0 && n < len(text); n *= 4 {
		for end = n; end > 0 && !utf8.RuneStart(text[end]); {
			end--
		}
		// A special token may take all white space before it.
		end = len(strings.TrimRightFunc(text[:end], unicode.IsSpace))
		if ids = e.tok.Encode(text[:end], true); len(ids)/2 > e.MaxLength {
			return ids, end
		}
	}
	return e.tok.Encode(text, true), len(text)
}

// encode tokenizes a text whose first part, prompt, is not trained. The
// trained part starts where the tokens of prompt and of the whole differ,
// since the last token of a prompt may join with what follows. cut says that
// there are more tokens, of a text that is too long anyway.
func (e *encoder) encode(prompt, full string) (x Example, cut bool) {
	ids, end := e.tokens(full)
	x = Example{Tokens: ids, Start: 1}
	if eos, ok := e.tok.EOS(); ok && (len(x.Tokens) == 0 || x.Tokens[len(x.Tokens)-1] != eos) {
		x.Tokens = append(slices.Clip(x.Tokens), eos)
	}
	if e.MaskPrompt && prompt != "" {
		p := e.tok.Encode(prompt[:min(len(prompt), end)], true)
		n := 0
		for n < len(p) && n < len(x.Tokens) && p[n] == x.Tokens[n] {
			n++
		}
		x.Start = max(1, n)
	}
	return x, end < len(full)
}

// limit applies the bounds on tokens and length.
func (e *encoder) limit(x Example, cut bool) (encoded, error) {
	if e.VocabSize > 0 {
		for _, t := range x.Tokens {
			if t < 0 || int(t) >= e.VocabSize {
				return encoded{}, fmt.Errorf("token %d is outside of the model's vocabulary of %d: tokenizer and model do not belong together", t, e.VocabSize)
			}
		}
	}
	out := encoded{Example: x}
	if n := len(x.Tokens); e.MaxLength > 0 && n > e.MaxLength {
		switch e.TooLong {
		case Drop:
			return encoded{dropped: true}, nil
		case Truncate:
			out.truncated = true
			out.Tokens = slices.Clone(x.Tokens[:e.MaxLength]) // lets go of the rest
		default:
			over := ""
			if cut {
				over = "over "
			}
			return encoded{}, fmt.Errorf("%s%d tokens, data.max_length is %d: raise it, or set data.too_long to truncate or drop", over, n, e.MaxLength)
		}
	}
	if len(out.Tokens) <= out.Start {
		if out.truncated {
			return encoded{}, fmt.Errorf("nothing is left to train when the example is truncated to %d tokens: raise data.max_length, or set data.too_long: drop", e.MaxLength)
		}
		return encoded{}, errNothing
	}
	return out, nil
}

// object returns the members of a line. A key that is there twice is an error,
// and so is half of a surrogate pair, which encoding/json would replace.
func object(line []byte) (map[string]json.RawMessage, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(line, &keys); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("malformed JSON at byte %d: %w", syntax.Offset, err)
		}
		return nil, errors.New("not a JSON object")
	}
	if at := loneSurrogate(line); at >= 0 {
		return nil, fmt.Errorf("byte %d: %s is half of a surrogate pair, not a character", at+1, line[at:at+6])
	}
	if keys == nil { // null
		return nil, nil
	}
	d, err := strictjson.NewDecoder(line)
	if err != nil {
		return nil, err
	}
	return keys, strictjson.Object(d, func(string) error { return strictjson.Skip(d) })
}

// loneSurrogate returns where in valid JSON an escape \ud800 to \udfff stands
// that is not one of a pair, or -1.
func loneSurrogate(line []byte) int {
	for i := 0; i < len(line); i++ {
		if line[i] != '\\' {
			continue
		}
		if i++; line[i] != 'u' {
			continue
		}
		r := unit(line[i-1:])
		i += 4
		if !utf16.IsSurrogate(r) {
			continue
		}
		if utf16.DecodeRune(r, unit(line[i+1:])) == utf8.RuneError {
			return i - 5
		}
		i += 6
	}
	return -1
}

// unit returns the value of an escape \uXXXX that b starts with, else 0.
func unit(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil {
		return 0
	}
	return rune(n)
}

// field returns a string of a line.
func field(keys map[string]json.RawMessage, name string) (string, error) {
	raw, ok := keys[name]
	if !ok {
		return "", fmt.Errorf("no key %q%s", name, hint(keys, name))
	}
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil || s == nil {
		return "", fmt.Errorf("%q is %.20s, want a string", name, raw)
	}
	return *s, nil
}

// hint says which keys there are instead.
func hint(keys map[string]json.RawMessage, name string) string {
	var have []string
	for k := range keys {
		have = append(have, fmt.Sprintf("%.40q", k))
	}
	slices.Sort(have)
	if len(have) == 0 {
		return ": the object is empty"
	}
	if len(have) > 8 {
		have = append(have[:8], "…")
	}
	want := `{"prompt": …, "completion": …}`
	if name == "text" {
		want = `{"text": …}`
	}
	return fmt.Sprintf(" but %s; want %s on every line", strings.Join(have, ", "), want)
}
