package tokenizer

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// normalizer changes text before it is split. moved says that the result no
// longer begins where the text did.
type normalizer interface {
	normalize(s string) (out string, moved bool)
}

type normalizeFunc func(string) string

func (f normalizeFunc) normalize(s string) (string, bool) { return f(s), false }

func newNormalizers(c *component, fail *failure) ([]normalizer, error) {
	list, err := flatten("normalizer", c, "normalizers", func(c *component) []component { return c.Normalizers })
	if err != nil {
		return nil, err
	}
	var out []normalizer
	growth := 1
	for _, p := range list {
		n, err := newNormalizer(p, &growth, fail)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

// maxPrepend bounds what is put before every stretch of text, in bytes;
// maxGrowth how many times longer all replacements together may make a text.
const (
	maxPrepend = 256
	maxGrowth  = 256
)

// grow multiplies growth by the most that a replacement lengthens a text, so
// that a chain of doublings is refused instead of run.
func (p placed) grow(growth *int) error {
	times := len(p.Content) + 1 // a pattern may match nothing, everywhere
	if p.Pattern.String != nil && *p.Pattern.String != "" {
		n := len(*p.Pattern.String)
		times = max(1, (len(p.Content)+n-1)/n)
	}
	if *growth *= min(times, maxGrowth+1); *growth > maxGrowth {
		return fmt.Errorf("%s: the replacements could make a text more than %d times longer", p.place, maxGrowth)
	}
	return nil
}

func newNormalizer(p placed, growth *int, fail *failure) (normalizer, error) {
	switch p.Type {
	case "NFC":
		return form{norm.NFC}, nil
	case "NFD":
		return form{norm.NFD}, nil
	case "NFKC":
		return form{norm.NFKC}, nil
	case "NFKD":
		return form{norm.NFKD}, nil
	case "Lowercase":
		return normalizeFunc(lower), nil
	case "Prepend":
		if len(p.Prepend) > maxPrepend {
			return nil, fmt.Errorf("%s.prepend: %d bytes long, the limit is %d", p.place, len(p.Prepend), maxPrepend)
		}
		return normalizeFunc(func(s string) string {
			if s == "" {
				return s
			}
			return p.Prepend + s
		}), nil
	case "Strip":
		return stripSpace{p.StripLeft, p.StripRight}, nil
	case "Replace":
		find, err := p.finder(fail)
		if err != nil {
			return nil, err
		}
		if err := p.grow(growth); err != nil {
			return nil, err
		}
		return replaceAll{find, p.Content}, nil
	}
	return nil, p.unknown("normalizer", "NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip")
}

// stripSpace removes white space at the ends.
type stripSpace struct{ left, right bool }

func (n stripSpace) normalize(s string) (out string, moved bool) {
	out = s
	if n.left {
		out = strings.TrimLeftFunc(out, unicode.IsSpace)
	}
	moved = len(out) < len(s)
	if n.right {
		out = strings.TrimRightFunc(out, unicode.IsSpace)
	}
	return out, moved
}

// replaceAll puts content in the place of every match. Hugging Face counts it
// as coming from the last character that it replaces.
type replaceAll struct {
	find    finder
	content string
}

func (n replaceAll) normalize(s string) (out string, moved bool) {
	out = replace(s, n.content, func(s string, f func(lo, hi int)) {
		n.find(s, func(lo, hi int) {
			if lo == 0 && hi > 0 {
				moved = n.content == "" || utf8.RuneCountInString(s[:hi]) > 1
			}
			f(lo, hi)
		})
	})
	return out, moved
}

// lower maps each character by itself, as Hugging Face does: no final sigma.
// İ is the only one that becomes two.
func lower(s string) string {
	return strings.ToLower(strings.ReplaceAll(s, "İ", "i\u0307"))
}

// replace puts content in the place of every match.
func replace(s, content string, find finder) string {
	var b strings.Builder
	done := 0
	find(s, func(lo, hi int) {
		b.WriteString(s[done:lo])
		b.WriteString(content)
		done = hi
	})
	if done == 0 && b.Len() == 0 {
		return s
	}
	b.WriteString(s[done:])
	return b.String()
}

// finder calls f with the matches of a pattern in s, from left to right.
type finder func(s string, f func(lo, hi int))

// finder returns the search for the component's pattern.
func (p placed) finder(fail *failure) (finder, error) {
	switch {
	case p.Pattern == nil || (p.Pattern.String == nil) == (p.Pattern.Regex == nil):
		return nil, fmt.Errorf("%s.pattern: want a String or a Regex", p.place)
	case p.Pattern.Regex != nil:
		return regexFinder(p.place+".pattern", *p.Pattern.Regex, fail)
	}
	text := *p.Pattern.String
	return func(s string, f func(lo, hi int)) {
		if text == "" {
			return
		}
		for from := 0; ; {
			i := strings.Index(s[from:], text)
			if i < 0 {
				return
			}
			f(from+i, from+i+len(text))
			from += i + len(text)
		}
	}, nil
}
