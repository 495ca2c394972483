package tokenizer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nlpodyssey/gotokenizers/models/bpemodel"
	"golang.org/x/text/unicode/norm"
)

// allBytes are the tiny tokenizers that lose nothing: every byte has a token and
// no space is added.
func allBytes(t testing.TB) map[string]*Tokenizer {
	toks := map[string]*Tokenizer{}
	for _, c := range readTiny(t).Cases {
		switch c.Name {
		case "as it is", "qwen2", "llama3", "smollm", "gpt2 as a split", "numbers in threes":
			toks[c.Name] = tiny(t, c.Over)
		}
	}
	if len(toks) != 6 {
		t.Fatalf("%d tokenizers", len(toks))
	}
	return toks
}

// FuzzRoundTrip: decoding gives back what was encoded, normalized; a stream
// gives the same, in whole runes.
func FuzzRoundTrip(f *testing.F) {
	for _, s := range readTiny(f).Texts {
		f.Add(s)
	}
	f.Add("\xff\xc3<s>\xa9")
	toks := allBytes(f)
	f.Fuzz(func(t *testing.T, s string) {
		for name, tok := range toks {
			want := s
			if tok.nfc {
				want = compose(s)
			}
			ids := tok.Encode(s, false)
			if utf8.ValidString(s) {
				if got := tok.Decode(ids, false); got != want {
					t.Errorf("%s: %q came back as %q", name, want, got)
				}
			}
			checkStream(t, tok, ids)
			for _, id := range ids {
				if _, ok := tok.Token(id); !ok || int(id) >= tok.Size() {
					t.Errorf("%s: id %d has no token", name, id)
				}
			}
		}
	})
}

// FuzzDecode: any ids decode to UTF-8, the same by stream.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{200, 10, 255, 3})
	tok := tiny(f, nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		var ids []int32
		for i := 0; i+1 < len(data); i += 2 {
			ids = append(ids, int32(data[i])+int32(data[i+1])%3*256-2)
		}
		checkStream(t, tok, ids)
	})
}

func checkStream(t *testing.T, tok *Tokenizer, ids []int32) {
	t.Helper()
	whole := tok.Decode(ids, false)
	if !utf8.ValidString(whole) {
		t.Errorf("Decode(%d) = %q is not UTF-8", ids, whole)
	}
	s, out := tok.Stream(false), ""
	for _, id := range ids {
		part := s.Push(id)
		if !utf8.ValidString(part) {
			t.Errorf("Push(%d) = %q is not UTF-8", id, part)
		}
		out += part
	}
	if out += s.Flush(); out != whole {
		t.Errorf("stream of %d gave %q, Decode %q", ids, out, whole)
	}
}

// TestPartialRunes: bytes of a rune that come in several tokens, and bytes that
// are no rune, decode as Rust's from_utf8_lossy has it.
func TestPartialRunes(t *testing.T) {
	tok := tiny(t, nil)
	for in, want := range map[string]string{
		"\xf0\x9f\xa6\x99":     "🦙",
		"\xf0\x9f\xa6":         "\ufffd",
		"\xf0\x9f\xa6x":        "\ufffdx",
		"\xf0\x9f\xf0\x9f":     "\ufffd\ufffd",
		"\xe2\x82\xe2\x82\xac": "\ufffd€",
		"\x80\x80":             "\ufffd\ufffd",
		"\xed\xa0\x80":         "\ufffd\ufffd\ufffd",
		"\xc0\x80":             "\ufffd\ufffd",
		"\xf4\x90\x80\x80":     "\ufffd\ufffd\ufffd\ufffd",
		"\xff":                 "\ufffd",
		"\xef\xbf\xbd":         "\ufffd",
	} {
		var ids []int32
		for i := range len(in) {
			id, ok := tok.ID(string(byteRune[in[i]]))
			if !ok || string(tok.Bytes(id)) != in[i:i+1] {
				t.Fatalf("byte %#x has token %d of bytes %q", in[i], id, tok.Bytes(id))
			}
			ids = append(ids, id)
		}
		if got := tok.Decode(ids, false); got != want {
			t.Errorf("%q decoded to %q, want %q", in, got, want)
		}
		checkStream(t, tok, ids)
	}
}

// TestLongMerge: the merging of long pieces gives what gotokenizers' gives.
func TestLongMerge(t *testing.T) {
	m := tiny(t, nil).merge
	letters := []string{" ", "the", "a", "t", "h", "e", "r", "in", "o", "ab", "  "}
	r := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	for range 500 {
		var s strings.Builder
		for range 1 + r.IntN(60) {
			s.WriteString(strings.Repeat(letters[r.IntN(len(letters))], 1+r.IntN(9)))
		}
		ids := m.symbols(nil, s.String())
		word := bpemodel.NewWordWithCapacity(len(ids))
		for _, id := range ids {
			word.Add(int(id), 1)
		}
		word.MergeAll(m.merges, 0)
		var want []int32
		for _, k := range *word {
			want = append(want, int32(k.ID))
		}
		if got := ids[:mergeLong(ids, m.merges)]; !slices.Equal(got, want) {
			t.Fatalf("%q merged to %d, want %d", s.String(), got, want)
		}
	}
}

// TestLinear: eight times the text takes the processor about eight times the time, whatever it
// is. A quadratic step would take 64 times; the bound leaves room for caches that others use too.
func TestLinear(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	toks := allBytes(t)
	for _, c := range readTiny(t).Cases {
		if c.Name == "added tokens" {
			toks[c.Name] = tiny(t, c.Over)
		}
	}
	for _, unit := range []string{"a", " ", "\n", " \n", "1", "!", "'", "ab ", "\u0301", "é", "<", "<s", "<b> ", "walk", "日本", "\xff", "a\u0301\u0323"} {
		for name, tok := range toks {
			short, long, linear := time.Hour, time.Hour, false
			for try := 0; try < 8 && !linear; try++ { // the best of some runs counts
				short = min(short, encodeTime(tok, strings.Repeat(unit, 1<<15/len(unit))))
				long = min(long, encodeTime(tok, strings.Repeat(unit, 1<<18/len(unit))))
				linear = long < 24*short+20*time.Millisecond
			}
			if !linear {
				t.Errorf("%s, %q: 32 KB take %v, 256 KB %v", name, unit, short, long)
			}
		}
	}
}

func encodeTime(tok *Tokenizer, s string) time.Duration {
	return busy(func() { tok.Encode(s, false) })
}

// TestCompose: form C is that of x/text where that is right, and marks in any
// number are put in order without anything put in between.
func TestCompose(t *testing.T) {
	marks := []rune{0x300, 0x301, 0x323, 0x327, 0x345, 0x344, 0xf73, 0x5b0, 'a', 'q', 0x1100, 0x1161, 0x11a8, 0x9c7, 0x9be, 0xac00, 0x212b}
	r := rand.New(rand.NewPCG(2, uint64(time.Now().UnixNano())))
	for range 2000 {
		var s strings.Builder
		for range r.IntN(12) {
			s.WriteRune(marks[r.IntN(len(marks))])
		}
		if got, want := composeAny(s.String()), norm.NFC.String(s.String()); got != want {
			t.Errorf("%+q composed to %+q, want %+q", s.String(), got, want)
		}
	}
	for r := range rune(0x30000) {
		if s := string(r); composeAny(s) != norm.NFC.String(s) {
			t.Errorf("%U composed to %+q, want %+q", r, composeAny(s), norm.NFC.String(s))
		}
	}
	in := "\xffa" + strings.Repeat("\u0301\u0323", 50) + "\xfe"
	want := "\xffạ" + strings.Repeat("\u0323", 49) + strings.Repeat("\u0301", 50) + "\xfe"
	if got := compose(in); got != want {
		t.Errorf("%+q composed to %+q, want %+q", in, got, want)
	}
}

// TestConcurrent encodes and decodes from many goroutines; the race detector looks on.
func TestConcurrent(t *testing.T) {
	tok := tiny(t, nil)
	texts := readTiny(t).Texts
	want := make([][]int32, len(texts))
	for i, s := range texts {
		want[i] = tiny(t, nil).Encode(s, true)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i, s := range texts {
				if got := tok.Encode(s, true); !slices.Equal(got, want[i]) {
					t.Errorf("%q encoded to %d, want %d", s, got, want[i])
				}
				tok.Decode(want[i], false)
			}
		})
	}
	wg.Wait()
}

// TestCacheBounded: pieces that never come back do not fill the memory.
func TestCacheBounded(t *testing.T) {
	c := newCache()
	for i := range 3 * cacheSize {
		c.put(fmt.Sprint(i), []int32{int32(i)})
	}
	if n := len(c.now) + len(c.old); n > 2*cacheSize {
		t.Errorf("%d pieces kept", n)
	}
	last := fmt.Sprint(3*cacheSize - 1)
	if ids, ok := c.get(last); !ok || ids[0] != int32(3*cacheSize-1) {
		t.Errorf("the last piece came back as %d, %v", ids, ok)
	}
}

func BenchmarkEncode(b *testing.B) {
	tok := open(b, "data", "tokenizer_qwen2_5")
	for name, text := range map[string]string{
		"prose":        strings.Repeat("The router splits a question into smaller ones, and each goes to a model that can answer it. ", 200),
		"one piece":    strings.Repeat("ab", 1<<16),
		"many scripts": strings.Repeat("naïve 日本語のテスト привет мир שלום 🦙 ", 400),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				tok.Encode(text, false)
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for b.Loop() {
		open(b, "data", "tokenizer_qwen2_5")
	}
}
