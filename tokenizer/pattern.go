package tokenizer

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dlclark/regexp2/v2"
)

// Limits of a file's own patterns. Sane ones need about 0.2 µs per byte.
const (
	maxPattern  = 1 << 14               // bytes, as compilation takes memory
	matchLimit  = 2 * time.Second       // for one match
	freeTime    = 5 * time.Second       // for all texts together,
	timePerByte = 10 * time.Microsecond // and in addition for what they hold
)

var errSlow = errors.New("matching takes too long; the expression needs to be simpler")

// regexFinder compiles a pattern of a file. The patterns of the large families
// have hand-written searches, which give the same matches much faster.
func regexFinder(place, expr string, fail *failure) (finder, error) {
	for _, digits := range []int{1, 3} {
		if expr == cl100k(digits) {
			return func(s string, f func(lo, hi int)) { cl100kWords(s, digits, f) }, nil
		}
	}
	if expr == gpt2Pattern {
		return gpt2Words, nil
	}
	if len(expr) > maxPattern {
		return nil, fmt.Errorf("%s: %d bytes long, the limit is %d", place, len(expr), maxPattern)
	}
	translated, err := translate(expr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	re, err := compile(translated)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	return (&pattern{re: re, place: place, fail: fail}).find, nil
}

// compile never panics: the engine is a port from a language with exceptions,
// and a defect of its parser must not take the program down.
func compile(expr string) (re *regexp2.Regexp, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("cannot be compiled: %v", r)
		}
	}()
	// To Oniguruma, ^ and $ are always the ends of lines.
	re, err = regexp2.Compile(expr, regexp2.Multiline)
	if err == nil {
		re.MatchTimeout = matchLimit
	}
	return re, err
}

// pattern is a regular expression whose time is bounded. When the bound is
// exceeded, fail says so, and all patterns stop matching.
type pattern struct {
	re          *regexp2.Regexp
	place       string
	fail        *failure
	spent, read atomic.Int64 // nanoseconds, bytes
}

func (p *pattern) find(s string, f func(lo, hi int)) {
	if p.fail.happened() {
		return
	}
	if err := p.scan(s, f); err != nil {
		p.fail.set(fmt.Errorf("tokenizer.json: %s: on a text of %d bytes: %w", p.place, len(s), err))
	}
}

func (p *pattern) scan(s string, f func(lo, hi int)) (err error) {
	start := time.Now()
	limit := freeTime + time.Duration(p.read.Add(int64(len(s))))*timePerByte - time.Duration(p.spent.Load())
	defer func() { p.spent.Add(int64(time.Since(start))) }()
	last := -1
	for m, err := p.first(s); m != nil || err != nil; m, err = p.next(m) {
		if err != nil {
			return err
		}
		lo, n := m.ByteRange()
		if n > 0 || lo != last { // none that is empty directly after another
			f(lo, lo+n)
			last = lo + n
		}
		if time.Since(start) > limit {
			return errSlow
		}
	}
	if time.Since(start) > limit {
		return errSlow
	}
	return nil
}

func (p *pattern) first(s string) (m *regexp2.Match, err error) {
	defer engineFailed(&err)
	return p.re.FindStringMatch(s)
}

func (p *pattern) next(m *regexp2.Match) (_ *regexp2.Match, err error) {
	defer engineFailed(&err)
	return p.re.FindNextMatch(m)
}

func engineFailed(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("the regular expression engine failed: %v", r)
	}
}

// foreign are the letters that, after a backslash, Oniguruma and the engine
// used here read differently.
const foreign = "WbBhHXKGyYNOgCMck"

// translate writes a pattern as the engine used here reads it. Tokenizers are
// written for Oniguruma; what it reads differently is refused. Its \w leaves
// the joiners out, and outside of classes has ² ³ ¹ ¼ ½ ¾.
func translate(expr string) (string, error) {
	const word = `\p{L}\p{Nl}\p{Other_Alphabetic}\p{M}\p{Nd}\p{Pc}`
	var b strings.Builder
	class := false
	for i := 0; i < len(expr); i++ {
		c, rest := expr[i], expr[i+1:]
		switch {
		case c == '\\' && rest != "":
			i++
			switch {
			case strings.IndexByte(foreign, rest[0]) >= 0:
				return "", fmt.Errorf("\\%c is not implemented", rest[0])
			case rest[0] == 'w' && class:
				b.WriteString(word)
			case rest[0] == 'w':
				b.WriteString("[" + word + "²³¹¼½¾]")
			default:
				n := escapeLen(rest)
				b.WriteString(expr[i-1 : i+n])
				i += n - 1
			}
			continue
		case class && (c == '[' || strings.HasPrefix(expr[i:], "&&")):
			return "", fmt.Errorf("%q within a class is not implemented", expr[i:min(i+2, len(expr))])
		case class:
			class = c != ']'
		case c == '[':
			class = true
			if strings.HasPrefix(rest, "]") || strings.HasPrefix(rest, "^]") {
				return "", fmt.Errorf("a class that begins with ] is not implemented; write \\]")
			}
		case c == '{' && strings.HasPrefix(rest, ","), c == '}' && strings.HasPrefix(rest, "+"):
			return "", fmt.Errorf("\"%.2s\" is not implemented: write {0,n}, and groups around what is repeated twice", expr[i:])
		case c == '(' && strings.HasPrefix(rest, "?") && !commonGroup(rest[1:]):
			return "", fmt.Errorf("\"(%.4s\" is not implemented", rest)
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

// escapeLen returns the length of an escape without its backslash: one letter,
// or \p{…} and its like.
func escapeLen(s string) int {
	if len(s) > 1 && s[1] == '{' && strings.IndexByte("pPx", s[0]) >= 0 {
		if i := strings.IndexByte(s, '}'); i > 0 {
			return i + 1
		}
	}
	return 1
}

// commonGroup says whether what follows "(?" means the same to both engines:
// plain, atomic and look-around groups, and the flag i.
func commonGroup(s string) bool {
	for _, kind := range []string{":", "=", "!", ">", "<=", "<!", "i:", "-i:", "i)", "-i)"} {
		if strings.HasPrefix(s, kind) {
			return true
		}
	}
	return false
}
