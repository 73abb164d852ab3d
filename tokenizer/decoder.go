package tokenizer

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// decoder changes the list of pieces on its way to text.
type decoder func(pieces []string) []string

// Decode returns the text of ids. With skipSpecial, special tokens are left
// out. An id that does not exist becomes U+FFFD.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	pieces := make([]string, 0, len(ids))
	for _, id := range ids {
		switch {
		case !t.known(id):
			pieces = append(pieces, replacement)
		case !skipSpecial || !t.entries[id].skip:
			pieces = append(pieces, t.entries[id].decoded)
		}
	}
	for _, d := range t.decoders {
		pieces = d(pieces)
	}
	separator := ""
	if t.spaced {
		separator = " "
	}
	return strings.Join(pieces, separator)
}

func newDecoders(c *component, fail *failure) ([]decoder, error) {
	list, err := flatten("decoder", c, "decoders", func(c *component) []component { return c.Decoders })
	if err != nil {
		return nil, err
	}
	var out []decoder
	growth := 1
	for _, p := range list {
		d, err := newDecoder(p, &growth, fail)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func newDecoder(p placed, growth *int, fail *failure) (decoder, error) {
	switch p.Type {
	case "ByteLevel":
		return decodeBytes, nil
	case "ByteFallback":
		return decodeFallback, nil
	case "Fuse":
		return func(pieces []string) []string { return []string{strings.Join(pieces, "")} }, nil
	case "Replace":
		find, err := p.finder(fail)
		if err != nil {
			return nil, err
		}
		if err := p.grow(growth); err != nil {
			return nil, err
		}
		return eachPiece(func(s string) string { return replace(s, p.Content, find) }), nil
	case "Strip":
		if p.Start < 0 || p.Stop < 0 || utf8.RuneCountInString(p.Content) != 1 {
			return nil, fmt.Errorf("%s: want one character as content, and start and stop of 0 or more", p.place)
		}
		return eachPiece(func(s string) string { return strip(s, p.Content, p.Start, p.Stop) }), nil
	case "Metaspace":
		m, err := newMetaspace(p)
		if err != nil {
			return nil, err
		}
		return decodeMetaspace(m.(metaspace)), nil
	}
	return nil, p.unknown("decoder", "ByteFallback, ByteLevel, Fuse, Metaspace, Replace, Strip")
}

func eachPiece(f func(string) string) decoder {
	return func(pieces []string) []string {
		for i := range pieces {
			pieces[i] = f(pieces[i])
		}
		return pieces
	}
}

func strip(s, content string, start, stop int) string {
	for n := 0; n < start && strings.HasPrefix(s, content); n++ {
		s = s[len(content):]
	}
	for n := 0; n < stop && strings.HasSuffix(s, content); n++ {
		s = s[:len(s)-len(content)]
	}
	return s
}

// decodeBytes reads pieces as bytes. A piece with a character that stands for
// no byte, such as an added token's, is taken as it is.
func decodeBytes(pieces []string) []string {
	var b []byte
	for _, s := range pieces {
		n := len(b)
		var ok bool
		if b, ok = unspell(b, s); !ok {
			b = append(b[:n], s...)
		}
	}
	return []string{lossy(string(b))}
}

// decodeFallback reads runs of <0xNN> as bytes; each byte of a run that is no
// UTF-8 becomes U+FFFD.
func decodeFallback(pieces []string) []string {
	var out []string
	var run []byte
	flush := func() {
		if utf8.Valid(run) && len(run) > 0 {
			out = append(out, string(run))
		} else {
			for range run {
				out = append(out, replacement)
			}
		}
		run = run[:0]
	}
	for _, s := range pieces {
		if b, ok := fallbackByte(s); ok {
			run = append(run, b)
			continue
		}
		flush()
		out = append(out, s)
	}
	flush()
	return out
}

func fallbackByte(s string) (byte, bool) {
	if len(s) != 6 || !strings.HasPrefix(s, "<0x") || s[5] != '>' {
		return 0, false
	}
	n, err := strconv.ParseUint(s[3:5], 16, 8)
	return byte(n), err == nil
}

// decodeMetaspace turns marks into spaces, but for those of the first piece,
// one of which was put before the text: Hugging Face drops them all.
func decodeMetaspace(m metaspace) decoder {
	return func(pieces []string) []string {
		for i, s := range pieces {
			if i == 0 && m.scheme != "never" {
				s = strings.ReplaceAll(s, m.mark, "")
			}
			pieces[i] = strings.ReplaceAll(s, m.mark, " ")
		}
		return pieces
	}
}
