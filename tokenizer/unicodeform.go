package tokenizer

import (
	"slices"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// form is one of the four Unicode normalization forms.
type form struct{ norm.Form }

func (f form) normalize(s string) (string, bool) {
	if manyMarks(f.Form, s) {
		return f.unbounded(s), false
	}
	return f.String(s), false
}

// manyMarks reports whether s may hold more than 30 combining marks in a row.
// There x/text inserts U+034F (the stream-safe text format), which the
// normalization forms as such, and Hugging Face, do not.
func manyMarks(f norm.Form, s string) bool {
	const perRune = 3 // at most so many marks come from one character
	marks := 0
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf {
			marks = 0
			i++
			continue
		}
		p := f.PropertiesString(s[i:])
		if p.CCC() == 0 {
			marks = 0
		}
		if marks += perRune; marks > 30 {
			return true
		}
		i += max(1, p.Size())
	}
	return false
}

// mark is a character with its canonical combining class.
type mark struct {
	r     rune
	class uint8
}

// unbounded normalizes as Unicode standard annex 15 says: decompose, sort
// marks by class, and for NFC and NFKC compose again.
func (f form) unbounded(s string) string {
	decompose, compose := norm.NFD, f.Form == norm.NFC || f.Form == norm.NFKC
	if f.Form == norm.NFKC || f.Form == norm.NFKD {
		decompose = norm.NFKD
	}
	var text []mark
	for _, r := range s {
		for _, d := range decompose.String(string(r)) {
			text = append(text, mark{d, norm.NFD.PropertiesString(string(d)).CCC()})
		}
	}
	sortMarks(text)
	if compose {
		text = composeMarks(text)
	}
	out := make([]rune, len(text))
	for i, m := range text {
		out[i] = m.r
	}
	return string(out)
}

// sortMarks orders every run of marks by class, keeping equals in order.
func sortMarks(text []mark) {
	for lo := 0; lo < len(text); {
		hi := lo
		for hi < len(text) && text[hi].class != 0 {
			hi++
		}
		slices.SortStableFunc(text[lo:hi], func(a, b mark) int { return int(a.class) - int(b.class) })
		lo = hi + 1
	}
}

// composeMarks joins each character with the last starter before it where a
// composite exists and nothing between blocks it.
func composeMarks(text []mark) []mark {
	out := text[:0]
	starter := -1 // index in out
	for _, m := range text {
		last := len(out) - 1
		blocked := starter < 0 || last > starter && (out[last].class == 0 || out[last].class >= m.class)
		if !blocked {
			if r, ok := composite(out[starter].r, m.r); ok {
				out[starter].r = r
				continue
			}
		}
		if m.class == 0 {
			starter = len(out)
		}
		out = append(out, m)
	}
	return out
}

// composite returns the character that a and b compose to.
func composite(a, b rune) (rune, bool) {
	s := norm.NFC.String(string([]rune{a, b}))
	r, n := utf8.DecodeRuneInString(s)
	return r, n == len(s)
}
