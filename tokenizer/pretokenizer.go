package tokenizer

import (
	"fmt"
	"strings"
	"unicode"
)

// stage splits text into words for stage k, which it calls for each.
type stage interface {
	apply(e *encoder, s string, first bool, k int)
}

func newStages(c *component, fail *failure) ([]stage, error) {
	list, err := flatten("pre_tokenizer", c, "pretokenizers", func(c *component) []component { return c.Pretokenizers })
	if err != nil {
		return nil, err
	}
	var out []stage
	for _, p := range list {
		s, err := newStage(p, fail)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	for i, s := range out {
		if _, ok := s.(byteLevel); ok && i != len(out)-1 {
			return nil, fmt.Errorf("%s: ByteLevel is implemented as the last pre-tokenizer only", list[i].place)
		}
	}
	return out, nil
}

// endsInBytes says whether words reach the model as bytes.
func endsInBytes(stages []stage) bool {
	if len(stages) == 0 {
		return false
	}
	_, ok := stages[len(stages)-1].(byteLevel)
	return ok
}

func newStage(p placed, fail *failure) (stage, error) {
	switch p.Type {
	case "ByteLevel":
		b := byteLevel{prefix: p.AddPrefixSpace == nil || *p.AddPrefixSpace}
		if p.UseRegex == nil || *p.UseRegex {
			b.find = gpt2Words
		}
		return b, nil
	case "Split":
		find, err := p.finder(fail)
		if err != nil {
			return nil, err
		}
		return newSplit(p, find)
	case "Digits":
		behaviour := contiguous
		if p.IndividualDigits {
			behaviour = isolated
		}
		return split{find: digits, behaviour: behaviour}, nil
	case "WhitespaceSplit":
		return split{find: spaces, behaviour: removed}, nil
	case "Metaspace":
		return newMetaspace(p)
	}
	return nil, p.unknown("pre-tokenizer", "ByteLevel, Digits, Metaspace, Split, WhitespaceSplit")
}

// byteLevel is the stage after which words are bytes.
type byteLevel struct {
	prefix bool
	find   finder // nil: one word
}

func (b byteLevel) apply(e *encoder, s string, first bool, k int) {
	if b.prefix && !strings.HasPrefix(s, " ") {
		s = " " + s
	}
	if b.find == nil {
		e.words(s, first, k)
		return
	}
	split{find: b.find, behaviour: isolated}.apply(e, s, first, k)
}

// behaviour says what becomes of the matches that text is split at.
type behaviour uint8

const (
	isolated     behaviour = iota // words of their own
	removed                       // nothing
	withPrevious                  // the end of the word before
	withNext                      // the beginning of the word after
	contiguous                    // neighbouring matches are one word
)

type split struct {
	find      finder
	behaviour behaviour
	invert    bool // matches are the words
}

func newSplit(p placed, find finder) (stage, error) {
	for name, b := range map[string]behaviour{"Isolated": isolated, "Removed": removed, "MergedWithPrevious": withPrevious,
		"MergedWithNext": withNext, "Contiguous": contiguous} {
		if p.Behavior == name {
			return split{find, b, p.Invert}, nil
		}
	}
	return nil, fmt.Errorf("%s.behavior: %q is not implemented (there are Isolated, Removed, MergedWithPrevious, MergedWithNext, Contiguous)", p.place, p.Behavior)
}

// part is a stretch of text, a match or not.
type part struct {
	lo, hi int
	match  bool
}

func (p split) apply(e *encoder, s string, first bool, k int) {
	base := len(e.parts)
	done := 0
	add := func(lo, hi int, match bool) {
		if lo < hi || match { // an empty match still parts its neighbours
			e.parts = append(e.parts, part{lo, hi, match != p.invert})
		}
	}
	p.find(s, func(lo, hi int) {
		add(done, lo, false)
		add(lo, hi, true)
		done = hi
	})
	add(done, len(s), false)
	top := p.join(e, base)
	for i := base; i < top; i++ {
		w := e.parts[i]
		e.words(s[w.lo:w.hi], first && w.lo == 0, k)
		e.parts = e.parts[:top]
	}
	e.parts = e.parts[:base]
}

// join turns the parts from base on into words and returns their end.
func (p split) join(e *encoder, base int) int {
	out := base
	emit := func(w part) {
		e.parts[out] = w
		out++
	}
	parts := e.parts
	var last part // the part before
	for i := base; i < len(parts); i++ {
		w := parts[i]
		before := i > base
		switch {
		case p.behaviour == removed && w.match:
		case p.behaviour == withPrevious && w.match && before && !last.match:
			e.parts[out-1].hi = w.hi
		case p.behaviour == withNext && !w.match && before && last.match:
			e.parts[out-1].hi = w.hi
		case p.behaviour == contiguous && before && w.match == last.match:
			e.parts[out-1].hi = w.hi
		default:
			emit(w)
		}
		last = w
	}
	e.parts = e.parts[:out]
	return out
}

func digits(s string, f func(lo, hi int)) {
	for i, r := range s {
		if unicode.IsNumber(r) {
			f(i, i+len(string(r)))
		}
	}
}

func spaces(s string, f func(lo, hi int)) {
	for i, r := range s {
		if unicode.IsSpace(r) {
			f(i, i+len(string(r)))
		}
	}
}

// metaspace writes spaces as a mark, puts one before the text, and splits
// before each.
type metaspace struct {
	mark   string
	scheme string // always, first or never
	split  bool
}

func newMetaspace(p placed) (stage, error) {
	m := metaspace{mark: p.Replacement, scheme: "always", split: p.Split == nil || *p.Split}
	if p.PrependScheme != nil {
		m.scheme = *p.PrependScheme
	} else if p.AddPrefixSpace != nil && !*p.AddPrefixSpace {
		m.scheme = "never"
	}
	if len([]rune(m.mark)) != 1 {
		return nil, fmt.Errorf("%s.replacement: want one character, found %q", p.place, m.mark)
	}
	if m.scheme != "always" && m.scheme != "first" && m.scheme != "never" {
		return nil, fmt.Errorf("%s.prepend_scheme: %q is not implemented (there are always, first, never)", p.place, m.scheme)
	}
	return m, nil
}

func (m metaspace) apply(e *encoder, s string, first bool, k int) {
	s = strings.ReplaceAll(s, " ", m.mark)
	if !strings.HasPrefix(s, m.mark) && (m.scheme == "always" || m.scheme == "first" && first) {
		s = m.mark + s
	}
	if !m.split {
		e.words(s, first, k)
		return
	}
	find := func(s string, f func(lo, hi int)) {
		for i := range s {
			if strings.HasPrefix(s[i:], m.mark) {
				f(i, i+len(m.mark))
			}
		}
	}
	split{find: find, behaviour: withNext}.apply(e, s, first, k)
}
