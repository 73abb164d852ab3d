package tokenizer

import (
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// replacement stands for what cannot be decoded.
const replacement = "\ufffd"

// Tokenizer converts between text and token ids. It is immutable; all methods
// are safe for concurrent use.
type Tokenizer struct {
	entries     []entry // by id
	model       *model
	added       map[string]int32
	verbatim    *matcher // added tokens that are searched in the text as it is
	normalized  *matcher // added tokens that are searched in normalized text
	normalizers []normalizer
	stages      []stage
	prefix      []int32 // ids that the post-processor puts before the text
	suffix      []int32 // and after it
	decoders    []decoder
	spaced      bool // the file has no decoder: pieces are joined by spaces
	bos, eos    int32
	failure     *failure
	encoders    sync.Pool
}

// entry describes one id.
type entry struct {
	piece   string // as the vocabulary spells it
	decoded string // what the decoder starts from
	known   bool   // false for ids that the vocabulary leaves out
	skip    bool   // a special token
}

// failure keeps the first error of a text that could not be processed.
type failure struct{ first atomic.Pointer[error] }

func (f *failure) set(err error)  { f.first.CompareAndSwap(nil, &err) }
func (f *failure) happened() bool { return f.first.Load() != nil }

// Err returns nil unless a regular expression of the file exceeded its time
// or memory limit during an Encode or Decode. From then on the file's regular
// expressions match nothing, so ids are not what they should be.
func (t *Tokenizer) Err() error {
	if err := t.failure.first.Load(); err != nil {
		return *err
	}
	return nil
}

// Size returns the number of ids: all ids are in [0, Size).
func (t *Tokenizer) Size() int { return len(t.entries) }

// BOS returns the id of the token that the files beside tokenizer.json name as the
// beginning of a sequence, and whether they name one.
func (t *Tokenizer) BOS() (int32, bool) { return t.bos, t.bos >= 0 }

// EOS returns the id of the token that the files beside tokenizer.json name as the end
// of a sequence, and whether they name one.
func (t *Tokenizer) EOS() (int32, bool) { return t.eos, t.eos >= 0 }

// Piece returns the vocabulary's spelling of id, or "" when there is no such
// id.
func (t *Tokenizer) Piece(id int32) string {
	if !t.known(id) {
		return ""
	}
	return t.entries[id].piece
}

// ID returns the id of a piece in the vocabulary's spelling.
func (t *Tokenizer) ID(piece string) (int32, bool) {
	if id, ok := t.added[piece]; ok {
		return id, true
	}
	id, ok := t.model.vocab[piece]
	return id, ok
}

func (t *Tokenizer) known(id int32) bool {
	return id >= 0 && int(id) < len(t.entries) && t.entries[id].known
}

// Encode returns the ids of text. With special, the post-processor's tokens
// are added, usually BOS in front. Added tokens that occur in the text are
// recognised either way. Bytes of text that are not UTF-8 count as U+FFFD.
func (t *Tokenizer) Encode(text string, special bool) []int32 {
	e := t.encoders.Get().(*encoder)
	defer t.encoders.Put(e)
	e.ids = make([]int32, 0, len(text)/3+len(t.prefix)+len(t.suffix)+1)
	if special {
		e.ids = append(e.ids, t.prefix...)
	}
	e.text(lossy(text))
	if special {
		e.ids = append(e.ids, t.suffix...)
	}
	ids := e.ids
	e.ids = nil
	return ids
}

// EncodePrompt is Encode for a text that goes on: with the special tokens that
// stand before it, but not those that the post-processor puts after it.
func (t *Tokenizer) EncodePrompt(text string) []int32 {
	ids := t.Encode(text, true)
	return ids[:len(ids)-len(t.suffix)]
}

// encoder is the working memory of one Encode at a time.
type encoder struct {
	*Tokenizer
	ids     []int32
	parts   []part // a stack: each level of splitting appends and truncates
	chunks  []chunk
	symbols []symbol
	queue   queue
	cache   cache
}

// text cuts out the verbatim added tokens and normalizes what is between.
func (e *encoder) text(s string) {
	e.chunks = e.verbatim.split(e.chunks[:0], s)
	top := len(e.chunks)
	for i := range top {
		c := e.chunks[i]
		if c.id >= 0 {
			e.ids = append(e.ids, c.id)
			continue
		}
		e.plain(s[c.lo:c.hi], c.lo == 0)
		e.chunks = e.chunks[:top]
	}
}

// plain normalizes s and cuts out the added tokens that are to be found in
// normalized text. first says that s begins the whole text.
func (e *encoder) plain(s string, first bool) {
	for _, n := range e.normalizers {
		var moved bool
		s, moved = n.normalize(s)
		first = first && !moved
	}
	base := len(e.chunks)
	e.chunks = e.normalized.split(e.chunks, s)
	for _, c := range e.chunks[base:] {
		if c.id >= 0 {
			e.ids = append(e.ids, c.id)
			continue
		}
		e.words(s[c.lo:c.hi], first && c.lo == 0, 0)
	}
}

// words runs the pre-tokenizer from its stage k on; empty words are dropped.
func (e *encoder) words(s string, first bool, k int) {
	switch {
	case s == "":
	case k == len(e.stages):
		e.word(s)
	default:
		e.stages[k].apply(e, s, first, k+1)
	}
}

// lossy returns s with one U+FFFD for every maximal part of an ill-formed
// UTF-8 sequence (Unicode 17, section 3.9), which is what Rust and the web do.
func lossy(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	b := make([]byte, 0, len(s)+16)
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n <= 1 {
			b = append(b, replacement...)
			n = illFormed(s)
		} else {
			b = append(b, s[:n]...)
		}
		s = s[n:]
	}
	return string(b)
}

// illFormed returns the length of the ill-formed sequence that s begins with:
// the longest start of a well-formed one, or one byte.
func illFormed(s string) int {
	lo, hi, more := byte(0x80), byte(0xbf), 0
	switch c := s[0]; {
	case c >= 0xc2 && c <= 0xdf:
		more = 1
	case c >= 0xe0 && c <= 0xef:
		more = 2
	case c >= 0xf0 && c <= 0xf4:
		more = 3
	}
	switch s[0] {
	case 0xe0:
		lo = 0xa0
	case 0xed:
		hi = 0x9f
	case 0xf0:
		lo = 0x90
	case 0xf4:
		hi = 0x8f
	}
	n := 1
	for n <= more && n < len(s) && s[n] >= lo && s[n] <= hi {
		lo, hi = 0x80, 0xbf
		n++
	}
	return n
}
