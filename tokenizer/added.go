package tokenizer

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxAdded bounds the length of an added token in bytes, so that a search
// takes time linear in the text.
const maxAdded = 1024

// add enters the added tokens and builds the searches for them.
func (t *Tokenizer) add(tokens []addedToken, limit int64) error {
	t.added = make(map[string]int32, len(tokens))
	t.entries = make([]entry, t.model.size)
	for piece, id := range t.model.vocab {
		t.entries[id] = entry{piece: piece, decoded: piece, known: true}
	}
	t.verbatim, t.normalized = new(matcher), new(matcher)
	specials := make(map[string]bool)
	for i := range tokens {
		if err := t.addOne(&tokens[i], limit, specials); err != nil {
			return fmt.Errorf("added_tokens[%d]: %w", i, err)
		}
	}
	// Special tokens are recognised by what they decode to, because Hugging Face
	// compares strings.
	for i := range t.entries {
		t.entries[i].skip = specials[t.entries[i].decoded]
	}
	return nil
}

func (t *Tokenizer) addOne(a *addedToken, limit int64, specials map[string]bool) error {
	if a.Content == "" {
		return nil
	}
	if len(a.Content) > maxAdded {
		return fmt.Errorf("%d bytes long, the limit is %d", len(a.Content), maxAdded)
	}
	if _, again := t.added[a.Content]; again {
		return fmt.Errorf("%q is there twice", a.Content)
	}
	id, err := t.addedID(a, limit)
	if err != nil {
		return err
	}
	sought := a.Content
	search := t.verbatim
	if a.Normalized {
		search = t.normalized
		for _, n := range t.normalizers {
			sought, _ = n.normalize(sought)
		}
	}
	if err := search.add(sought, found{id, a.SingleWord, a.LStrip, a.RStrip}); err != nil {
		return fmt.Errorf("%q: %w", a.Content, err)
	}
	t.added[a.Content] = id
	if a.Special {
		specials[a.Content] = true
	}
	t.entries[id] = entry{piece: a.Content, decoded: sought, known: true}
	return nil
}

// addedID checks the id of an added token. Hugging Face ignores the file's
// id: a token of the vocabulary keeps its id there, any other gets the next
// one, counted from the number of pieces. Where that disagrees with the file,
// nobody can tell which row of the embedding is meant.
func (t *Tokenizer) addedID(a *addedToken, limit int64) (int32, error) {
	if a.ID < 0 || a.ID >= limit {
		return 0, fmt.Errorf("%q: id %d is out of range [0, %d)", a.Content, a.ID, limit)
	}
	want, ok := t.model.vocab[a.Content]
	if !ok {
		if len(t.entries) == t.model.size && len(t.model.vocab) != t.model.size {
			return 0, fmt.Errorf("%q has no place: model.vocab has %d pieces with ids up to %d", a.Content, len(t.model.vocab), t.model.size-1)
		}
		want = int32(len(t.entries))
	}
	if int64(want) != a.ID {
		return 0, fmt.Errorf("%q has id %d, but its place in the vocabulary is %d", a.Content, a.ID, want)
	}
	if !ok {
		t.entries = append(t.entries, entry{})
	}
	return want, nil
}

// found is what a matcher knows of an added token.
type found struct {
	id                     int32
	single, lstrip, rstrip bool
}

// chunk is a stretch of text: an added token, or text between when id is -1.
type chunk struct {
	lo, hi int
	id     int32
}

// matcher finds added tokens: at the leftmost place, there the longest. It is
// a trie over bytes; node 0 is the root.
type matcher struct {
	first  [256]bool // bytes that a token begins with
	edges  map[uint64]int32
	tokens []*found // by node; nil where no token ends
}

func (m *matcher) add(s string, f found) error {
	if s == "" {
		return fmt.Errorf("the normalizer leaves nothing of it")
	}
	if len(s) > 8*maxAdded {
		return fmt.Errorf("the normalizer makes it %d bytes long", len(s))
	}
	if m.tokens == nil {
		m.edges, m.tokens = make(map[uint64]int32), make([]*found, 1)
	}
	m.first[s[0]] = true
	node := int32(0)
	for i := range len(s) {
		key := uint64(node)<<8 | uint64(s[i])
		next, ok := m.edges[key]
		if !ok {
			next = int32(len(m.tokens))
			m.edges[key] = next
			m.tokens = append(m.tokens, nil)
		}
		node = next
	}
	if m.tokens[node] != nil {
		return fmt.Errorf("the normalizer makes it equal to another added token")
	}
	m.tokens[node] = &f
	return nil
}

// longest returns the longest token that s begins with, and its length.
func (m *matcher) longest(s string) (f *found, length int) {
	node, ok := int32(0), true
	for i := range len(s) {
		if node, ok = m.edges[uint64(node)<<8|uint64(s[i])]; !ok {
			break
		}
		if m.tokens[node] != nil {
			f, length = m.tokens[node], i+1
		}
	}
	return f, length
}

// split appends the chunks of s to dst.
func (m *matcher) split(dst []chunk, s string) []chunk {
	done := 0     // end of the last token with the white space that it took
	blankEnd := 0 // from the last look at white space to here, all is white space
	for i := 0; i < len(s) && m.tokens != nil; {
		if !m.first[s[i]] {
			i++
			continue
		}
		f, n := m.longest(s[i:])
		if f == nil {
			i++
			continue
		}
		lo, hi := i, i+n
		i = hi
		if f.single && (endsInWord(s[:lo]) || beginsWithWord(s[hi:])) {
			continue
		}
		if f.lstrip {
			lo = max(lo, done)
			lo = done + len(strings.TrimRightFunc(s[done:lo], unicode.IsSpace))
		}
		if f.rstrip {
			if hi > blankEnd {
				blankEnd = len(s) - len(strings.TrimLeftFunc(s[hi:], unicode.IsSpace))
			}
			hi = blankEnd
		}
		if done < lo {
			dst = append(dst, chunk{done, lo, -1})
		}
		if lo < hi { // an earlier token may have taken all of it
			dst = append(dst, chunk{lo, hi, f.id})
		}
		done = hi
	}
	if done < len(s) {
		dst = append(dst, chunk{done, len(s), -1})
	}
	return dst
}

func endsInWord(s string) bool {
	r, n := utf8.DecodeLastRuneInString(s)
	return n > 0 && isWord(r)
}

func beginsWithWord(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return n > 0 && isWord(r)
}

// isWord is \w of Unicode technical standard 18, annex C.
func isWord(r rune) bool {
	return unicode.In(r, unicode.L, unicode.Nl, unicode.Other_Alphabetic, unicode.M, unicode.Nd, unicode.Pc, unicode.Join_Control)
}
