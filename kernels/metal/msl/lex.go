package msl

import (
	"fmt"
	"strconv"
	"strings"
)

type kind uint8

const (
	ident kind = iota
	number
	text // string or character literal
	punct
	directive // a whole preprocessor line
)

// token is one token of a Metal source; comments and blanks are left out.
type token struct {
	kind     kind
	s        string
	pos, end int
	file     string // as #line directives say
	line     int
	skip     int // of an opening bracket: tokens to the one that closes it
}

func isIdent(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDigit(c)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// lexer walks over a source.
type lexer struct {
	src  string
	at   int
	file string
	line int
	out  []token
}

// lex splits src into tokens and matches its brackets.
func lex(name, src string) ([]token, error) {
	l := &lexer{src: src, file: name, line: 1}
	for first := true; ; first = false { // first: nothing but blanks so far on this line
		newline, err := l.blank()
		if err != nil {
			return nil, err
		}
		if l.at == len(src) {
			return l.out, match(l.out)
		}
		if err := l.next(first || newline); err != nil {
			return nil, err
		}
	}
}

func (l *lexer) rest() string { return l.src[l.at:] }

func (l *lexer) errorf(format string, a ...any) error {
	return fmt.Errorf("%s:%d: %s", l.file, l.line, fmt.Sprintf(format, a...))
}

// blank passes blanks and comments and says whether a line ended in them.
func (l *lexer) blank() (newline bool, err error) {
	for l.at < len(l.src) {
		switch c := l.src[l.at]; {
		case c == '\n':
			l.line++
			newline = true
			l.at++
		case c == ' ' || c == '\t' || c == '\r':
			l.at++
		case strings.HasPrefix(l.rest(), "//"):
			l.at += lineLength(l.rest())
		case strings.HasPrefix(l.rest(), "/*"):
			n := strings.Index(l.rest()[2:], "*/")
			if n < 0 {
				return false, l.errorf("comment does not end")
			}
			l.line += strings.Count(l.rest()[:n+4], "\n")
			l.at += n + 4
		default:
			return newline, nil
		}
	}
	return newline, nil
}

// lineLength is the length of s's first line.
func lineLength(s string) int {
	if n := strings.IndexByte(s, '\n'); n >= 0 {
		return n
	}
	return len(s)
}

// next appends the token here. bol says that it begins its line.
func (l *lexer) next(bol bool) error {
	t := token{kind: punct, pos: l.at, file: l.file, line: l.line}
	n := 1
	switch c := l.src[l.at]; {
	case c == '#' && bol:
		t.kind, n = directive, l.directive()
	case c == '"' || c == '\'':
		t.kind, n = text, literalLength(l.rest())
		if n == 0 {
			return l.errorf("literal does not end")
		}
	case isDigit(c) || c == '.' && len(l.rest()) > 1 && isDigit(l.rest()[1]):
		t.kind, n = number, numberLength(l.rest())
	case isIdent(c):
		t.kind = ident
		for n < len(l.rest()) && isIdent(l.rest()[n]) {
			n++
		}
	default:
		n = operatorLength(l.rest())
	}
	l.at += n
	t.end = l.at
	t.s = l.src[t.pos:t.end]
	l.out = append(l.out, t)
	return nil
}

// directive is the length of the preprocessor line here, continued lines
// included; it obeys #line.
func (l *lexer) directive() int {
	n := lineLength(l.rest())
	for n < len(l.rest()) && strings.HasSuffix(strings.TrimSuffix(l.rest()[:n], "\r"), "\\") {
		n += 1 + lineLength(l.rest()[n+1:])
		l.line++
	}
	f := strings.Fields(l.rest()[:n])
	if len(f) == 3 && f[0] == "#line" {
		line, err := strconv.Atoi(f[1])
		file, err2 := strconv.Unquote(f[2])
		if err == nil && err2 == nil {
			l.file, l.line = file, line-1
		}
	}
	return n
}

// literalLength is the length of the quoted literal that s begins with, or 0.
func literalLength(s string) int {
	for i := 1; i < len(s) && s[i] != '\n'; i++ {
		switch s[i] {
		case '\\':
			i++
		case s[0]:
			return i + 1
		}
	}
	return 0
}

func numberLength(s string) int {
	hex := strings.HasPrefix(s, "0x")
	n := 1
	for n < len(s) {
		sign := (s[n] == '+' || s[n] == '-') && (s[n-1] == 'e' || s[n-1] == 'E') && !hex
		if !isIdent(s[n]) && s[n] != '.' && !sign {
			break
		}
		n++
	}
	return n
}

func operatorLength(s string) int {
	for _, op := range []string{"::", "->", "+=", "-=", "*=", "/=", "==", "!=", "<=", ">=", "&&", "||", "++", "--"} {
		if strings.HasPrefix(s, op) {
			return 2
		}
	}
	return 1
}

// match sets skip of every ( [ and {.
func match(t []token) error {
	var open []int
	for i := range t {
		if t[i].kind != punct {
			continue
		}
		switch t[i].s {
		case "(", "[", "{":
			open = append(open, i)
		case ")", "]", "}":
			last := len(open) - 1
			if last < 0 || !strings.Contains("() [] {}", t[open[last]].s+t[i].s) {
				return fmt.Errorf("%s:%d: %s closes nothing", t[i].file, t[i].line, t[i].s)
			}
			t[open[last]].skip = i - open[last]
			open = open[:last]
		}
	}
	if len(open) > 0 {
		o := t[open[len(open)-1]]
		return fmt.Errorf("%s:%d: %s is not closed", o.file, o.line, o.s)
	}
	return nil
}
