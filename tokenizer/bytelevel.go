package tokenizer

// Byte-level vocabularies spell every byte as one printable character: the
// visible Latin-1 characters as themselves, the others as U+0100 and up, in
// order. A space is Ġ, a newline Ċ.
const byteRunes = 0x100 + 256 - 188 // one past the last such character

// byteRune returns the character that stands for b.
func byteRune(b byte) rune {
	switch {
	case b >= '!' && b <= '~', b >= 0xa1 && b <= 0xac, b >= 0xae:
		return rune(b)
	case b <= ' ':
		return 0x100 + rune(b)
	case b <= 0xa0:
		return 0x100 + 33 + rune(b-0x7f)
	}
	return byteRunes - 1 // 0xad, the soft hyphen
}

// runeByte is the inverse of byteRune.
func runeByte(r rune) (byte, bool) {
	switch {
	case r >= '!' && r <= '~', r >= 0xa1 && r <= 0xac, r >= 0xae && r <= 0xff:
		return byte(r), true
	case r >= 0x100 && r <= 0x120:
		return byte(r - 0x100), true
	case r >= 0x121 && r < byteRunes-1:
		return byte(r-0x121) + 0x7f, true
	case r == byteRunes-1:
		return 0xad, true
	}
	return 0, false
}

// spell writes the bytes of s as characters.
func spell(s string) string {
	b := make([]byte, 0, 2*len(s))
	for i := range len(s) {
		b = appendRune(b, byteRune(s[i]))
	}
	return string(b)
}

// appendRune is utf8.AppendRune for the characters of byteRune.
func appendRune(b []byte, r rune) []byte {
	if r < 0x80 {
		return append(b, byte(r))
	}
	return append(b, 0xc0|byte(r>>6), 0x80|byte(r)&0x3f)
}

// unspell appends the bytes that s stands for; it fails on a character that
// stands for no byte.
func unspell(b []byte, s string) ([]byte, bool) {
	for _, r := range s {
		c, ok := runeByte(r)
		if !ok {
			return b, false
		}
		b = append(b, c)
	}
	return b, true
}
