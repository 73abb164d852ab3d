package tokenizer

import (
	"fmt"
	"slices"
	"unicode/utf8"
)

// model is byte pair encoding.
type model struct {
	vocab  map[string]int32
	size   int // one past the largest id
	merges map[pair]merge

	byteLevel bool       // words are bytes, spelled as in bytelevel.go
	bytes     [256]int32 // ids of single bytes; -1: there is none
	fallback  bool       // characters that are not in vocab fall back to bytes
	unknown   int32      // -1: none
	fuse      bool       // neighbouring unknown characters are one token
	whole     bool       // a word that is in vocab is taken as it is
}

type pair struct{ a, b int32 }

// merge is what a pair becomes, and how urgently.
type merge struct{ rank, id int32 }

func newModel(f *modelFile, limit int64, byteLevel bool) (*model, error) {
	m := &model{vocab: make(map[string]int32, len(f.Vocab)), merges: make(map[pair]merge, len(f.Merges)), byteLevel: byteLevel,
		fallback: f.ByteFallback, unknown: -1, fuse: f.FuseUnk, whole: f.IgnoreMerges}
	switch {
	case len(f.Vocab) == 0:
		return nil, fmt.Errorf("model.vocab: empty or missing")
	case f.Merges == nil:
		return nil, fmt.Errorf("model.merges: missing")
	case f.Dropout != nil && *f.Dropout != 0:
		return nil, fmt.Errorf("model.dropout: %v is not implemented: encoding would be random", *f.Dropout)
	case f.ContinuingSubwordPrefix != nil && *f.ContinuingSubwordPrefix != "":
		return nil, fmt.Errorf("model.continuing_subword_prefix: %q is not implemented", *f.ContinuingSubwordPrefix)
	case f.EndOfWordSuffix != nil && *f.EndOfWordSuffix != "":
		return nil, fmt.Errorf("model.end_of_word_suffix: %q is not implemented", *f.EndOfWordSuffix)
	}
	owner := make(map[int64]string, len(f.Vocab))
	for piece, id := range f.Vocab {
		if id < 0 || id >= limit {
			return nil, fmt.Errorf("model.vocab: %q: id %d is out of range [0, %d)", piece, id, limit)
		}
		if other, twice := owner[id]; twice {
			return nil, fmt.Errorf("model.vocab: %q and %q have the same id %d", min(piece, other), max(piece, other), id)
		}
		owner[id] = piece
		m.vocab[piece] = int32(id)
		m.size = max(m.size, int(id)+1)
	}
	if err := m.addMerges(f.Merges); err != nil {
		return nil, err
	}
	for b := range 256 {
		piece := fmt.Sprintf("<0x%02X>", b)
		if byteLevel {
			piece = string(byteRune(byte(b)))
		}
		m.bytes[b] = -1
		if id, ok := m.vocab[piece]; ok {
			m.bytes[b] = id
		}
	}
	if u := f.UnkToken; u != nil {
		id, ok := m.vocab[*u]
		if ok {
			m.unknown = id
		} else if !m.complete() {
			return nil, fmt.Errorf("model.unk_token: %q is not in model.vocab", *u)
		}
	}
	return m, nil
}

// complete says whether no text ever needs the unknown token.
func (m *model) complete() bool {
	return (m.byteLevel || m.fallback) && !slices.Contains(m.bytes[:], -1)
}

func (m *model) addMerges(list mergeList) error {
	for i, p := range list {
		if len(p) != 2 {
			return fmt.Errorf("model.merges[%d]: want two pieces, found %q", i, p)
		}
		var ids [3]int32
		for j, piece := range []string{p[0], p[1], p[0] + p[1]} {
			id, ok := m.vocab[piece]
			if !ok {
				return fmt.Errorf("model.merges[%d]: %q is not in model.vocab", i, piece)
			}
			ids[j] = id
		}
		// Of a pair that is listed twice, the later entry counts, as in a map.
		m.merges[pair{ids[0], ids[1]}] = merge{int32(i), ids[2]}
	}
	return nil
}

// cache remembers the ids of short words. It is bounded: when it is full, it
// starts anew.
type cache map[string][]int32

const (
	maxCached     = 1 << 14 // words
	maxCachedWord = 64      // bytes
)

// word appends the ids of one word.
func (e *encoder) word(s string) {
	if ids, ok := e.cache[s]; ok {
		e.ids = append(e.ids, ids...)
		return
	}
	from := len(e.ids)
	e.merge(s)
	if len(s) > maxCachedWord {
		return
	}
	if e.cache == nil || len(e.cache) >= maxCached {
		e.cache = make(cache)
	}
	e.cache[s] = append([]int32(nil), e.ids[from:]...)
}

// symbol is a link of a word's chain of pieces. A merged one has id -1.
type symbol struct{ id, prev, next int32 }

// merge runs byte pair encoding over a word.
func (e *encoder) merge(s string) {
	m := e.model
	if m.whole {
		spelled := s
		if m.byteLevel {
			spelled = spell(s)
		}
		if id, ok := m.vocab[spelled]; ok {
			e.ids = append(e.ids, id)
			return
		}
	}
	e.start(s)
	if len(e.symbols) == 0 {
		return
	}
	e.queue = e.queue[:0]
	for i := range e.symbols[:len(e.symbols)-1] {
		e.offer(int32(i))
	}
	for len(e.queue) > 0 {
		c := e.queue.pop()
		i := c.at
		j := e.symbols[i].next
		if e.symbols[i].id != c.a || j < 0 || e.symbols[j].id != c.b {
			continue // one of the two has been merged since
		}
		e.symbols[i].id, e.symbols[i].next = c.id, e.symbols[j].next
		e.symbols[j].id = -1
		if k := e.symbols[i].next; k >= 0 {
			e.symbols[k].prev = i
		}
		if e.symbols[i].prev >= 0 {
			e.offer(e.symbols[i].prev)
		}
		e.offer(i)
	}
	for i := int32(0); i >= 0; i = e.symbols[i].next {
		e.ids = append(e.ids, e.symbols[i].id)
	}
}

// start makes the chain of single symbols.
func (e *encoder) start(s string) {
	m := e.model
	e.symbols = e.symbols[:0]
	push := func(id int32) {
		n := int32(len(e.symbols))
		e.symbols = append(e.symbols, symbol{id, n - 1, n + 1})
	}
	// As Hugging Face does it, an unknown token waits for the next character of
	// the vocabulary; the bytes of characters in between come before it.
	waiting := false
	flush := func() {
		if waiting {
			push(m.unknown)
			waiting = false
		}
	}
	miss := func() {
		if !m.fuse {
			flush()
		}
		waiting = m.unknown >= 0
	}
	if m.byteLevel {
		for i := range len(s) {
			if id := m.bytes[s[i]]; id >= 0 {
				flush()
				push(id)
			} else {
				miss()
			}
		}
	} else {
		for len(s) > 0 {
			_, n := utf8.DecodeRuneInString(s)
			if id, ok := m.vocab[s[:n]]; ok {
				flush()
				push(id)
			} else if m.fallback && m.hasBytes(s[:n]) {
				for i := range n {
					push(m.bytes[s[i]])
				}
			} else {
				miss()
			}
			s = s[n:]
		}
	}
	flush()
	if n := len(e.symbols); n > 0 {
		e.symbols[n-1].next = -1
	}
}

func (m *model) hasBytes(s string) bool {
	for i := range len(s) {
		if m.bytes[s[i]] < 0 {
			return false
		}
	}
	return true
}

// offer queues the merge of symbol i with its successor, if there is one.
func (e *encoder) offer(i int32) {
	j := e.symbols[i].next
	if j < 0 {
		return
	}
	a, b := e.symbols[i].id, e.symbols[j].id
	if to, ok := e.model.merges[pair{a, b}]; ok {
		e.queue.push(candidate{to.rank, i, to.id, a, b})
	}
}

// candidate is a merge that was possible when it was queued.
type candidate struct{ rank, at, id, a, b int32 }

func (c candidate) before(d candidate) bool {
	return c.rank < d.rank || c.rank == d.rank && c.at < d.at
}

// queue is a binary heap: the lowest rank first, then the leftmost.
type queue []candidate

func (q *queue) push(c candidate) {
	*q = append(*q, c)
	h := *q
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h[i].before(h[parent]) {
			break
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

func (q *queue) pop() candidate {
	h := *q
	top := h[0]
	n := len(h) - 1
	h[0] = h[n]
	*q = h[:n]
	h = h[:n]
	for i := 0; ; {
		child := 2*i + 1
		if child >= n {
			return top
		}
		if child+1 < n && h[child+1].before(h[child]) {
			child++
		}
		if !h[child].before(h[i]) {
			return top
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}
