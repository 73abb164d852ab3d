package tokenizer

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// gpt2Pattern is the pattern of ByteLevel with use_regex.
const gpt2Pattern = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

// gpt2Words finds the matches of gpt2Pattern.
func gpt2Words(s string, f func(lo, hi int)) {
	for at := 0; at < len(s); {
		n := gpt2Next(s[at:])
		f(at, at+n)
		at += n
	}
}

// gpt2Next returns the length of the first match.
func gpt2Next(s string) int {
	for _, c := range []string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"} {
		if strings.HasPrefix(s, c) {
			return len(c)
		}
	}
	skip := 0
	if s[0] == ' ' {
		skip = 1
	}
	for _, class := range []func(rune) bool{unicode.IsLetter, unicode.IsNumber, isPunct} {
		if n := span(s[skip:], class); n > 0 {
			return skip + n
		}
	}
	return blank(s)
}

// blank returns the length of \s+(?!\S)|\s+ : white space, but for its last
// character where something follows.
func blank(s string) int {
	n := span(s, unicode.IsSpace)
	if n == len(s) {
		return n
	}
	_, last := utf8.DecodeLastRuneInString(s[:n])
	if n > last {
		return n - last
	}
	return max(n, 1)
}

// cl100k is the pattern of the cl100k family, whose numbers have at most
// digits digits: 1 in Qwen 2, 3 in Llama 3.
func cl100k(digits int) string {
	n := `\p{N}`
	if digits > 1 {
		n = fmt.Sprintf(`\p{N}{1,%d}`, digits)
	}
	return `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|` + n + `| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
}

func cl100kWords(s string, digits int, f func(lo, hi int)) {
	for at := 0; at < len(s); {
		n := cl100kNext(s[at:], digits)
		f(at, at+n)
		at += n
	}
}

// cl100kNext returns the length of the first match.
func cl100kNext(s string, digits int) int {
	r, n := utf8.DecodeRuneInString(s)
	if r == '\'' {
		if k := contraction(s); k > 0 {
			return k
		}
	}
	if unicode.IsLetter(r) {
		return n + span(s[n:], unicode.IsLetter)
	}
	if unicode.IsNumber(r) {
		for i := 1; i < digits; i++ {
			r, k := utf8.DecodeRuneInString(s[n:])
			if k == 0 || !unicode.IsNumber(r) {
				break
			}
			n += k
		}
		return n
	}
	if !isNewline(r) {
		if k := span(s[n:], unicode.IsLetter); k > 0 {
			return n + k
		}
	}
	skip := 0
	if r == ' ' {
		skip = 1
	}
	if k := span(s[skip:], isPunct); k > 0 {
		k += skip
		return k + span(s[k:], isNewline)
	}
	space := span(s, unicode.IsSpace)
	if i := strings.LastIndexAny(s[:space], "\r\n"); i >= 0 {
		return i + 1
	}
	return blank(s)
}

// contraction returns the length of an apostrophe and its letters, in either
// case. (?i:s) also matches the long s, U+017F.
func contraction(s string) int {
	for _, c := range []string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"} {
		if len(s) >= len(c) && strings.EqualFold(s[:len(c)], c) {
			return len(c)
		}
	}
	if strings.HasPrefix(s, "'ſ") {
		return len("'ſ")
	}
	return 0
}

// span returns the length of the longest prefix whose characters are all in
// class.
func span(s string, class func(rune) bool) int {
	for i, r := range s {
		if !class(r) {
			return i
		}
	}
	return len(s)
}

func isNewline(r rune) bool { return r == '\r' || r == '\n' }

// isPunct is [^\s\p{L}\p{N}].
func isPunct(r rune) bool {
	return !unicode.IsSpace(r) && !unicode.IsLetter(r) && !unicode.IsNumber(r)
}
