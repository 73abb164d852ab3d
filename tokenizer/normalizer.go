package tokenizer

import (
	"fmt"
	"strings"
	"unicode"

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
	for _, p := range list {
		n, err := newNormalizer(p, fail)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

func newNormalizer(p placed, fail *failure) (normalizer, error) {
	switch p.Type {
	case "NFC":
		return normalizeFunc(norm.NFC.String), nil
	case "NFD":
		return normalizeFunc(norm.NFD.String), nil
	case "NFKC":
		return normalizeFunc(norm.NFKC.String), nil
	case "NFKD":
		return normalizeFunc(norm.NFKD.String), nil
	case "Lowercase":
		return normalizeFunc(lower), nil
	case "Prepend":
		return normalizeFunc(func(s string) string {
			if s == "" {
				return s
			}
			return p.Prepend + s
		}), nil
	case "Strip":
		return normalizeFunc(func(s string) string {
			if p.StripLeft {
				s = strings.TrimLeftFunc(s, unicode.IsSpace)
			}
			if p.StripRight {
				s = strings.TrimRightFunc(s, unicode.IsSpace)
			}
			return s
		}), nil
	case "Replace":
		find, err := p.finder(fail)
		if err != nil {
			return nil, err
		}
		return normalizeFunc(func(s string) string { return replace(s, p.Content, find) }), nil
	}
	return nil, p.unknown("normalizer", "NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip")
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
