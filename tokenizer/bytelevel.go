package tokenizer

import "unicode/utf8"

// Byte-level BPE spells a byte as a rune that can be seen: printable ASCII and
// Latin-1 as themselves, the other 68 bytes as the runes from U+0100 on, in order.
var (
	byteRune [256]rune
	runeByte = map[rune]byte{}
)

func init() {
	next := rune(0x100)
	for b := range 256 {
		r := rune(b)
		if !(r >= '!' && r <= '~' || r >= 0xA1 && r <= 0xAC || r >= 0xAE) {
			r = next
			next++
		}
		byteRune[b] = r
		runeByte[r] = byte(b)
	}
}

// spell writes bytes in byte-level runes.
func spell(s string) string {
	out := make([]byte, 0, 2*len(s))
	for i := range len(s) {
		out = utf8.AppendRune(out, byteRune[s[i]])
	}
	return string(out)
}

// unspell gives the bytes a token decodes to: those its runes spell, or its own
// UTF-8 where one of them spells none (an added token with a space, say).
func unspell(token string) []byte {
	out := make([]byte, 0, len(token))
	for _, r := range token {
		b, ok := runeByte[r]
		if !ok {
			return []byte(token)
		}
		out = append(out, b)
	}
	return out
}
