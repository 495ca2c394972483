package grammar

import (
	"encoding/json"
	"math/rand/v2"
	"regexp"
	"testing"
)

// wander draws up to 60 tokens, and fails where nothing may follow.
func wander(t *testing.T, c *Constraint, v *Vocabulary, seed uint64) (s string, done bool) {
	rng := rand.New(rand.NewPCG(seed, 5))
	mask := make([]uint32, (v.size+31)/32)
	var out []byte
	for state := int32(0); len(out) < 60 && !done; {
		c.Allow(state, mask)
		if c.Err() != nil {
			return "", false
		}
		first := rng.IntN(v.size)
		id := -1
		for i := range v.size {
			if j := (first + i) % v.size; mask[j/32]>>(j%32)&1 == 1 {
				id = j
				break
			}
		}
		if id < 0 {
			t.Fatalf("nothing may follow %q", out)
		}
		var ok bool
		if state, done, ok = c.Next(state, int32(id)); !ok && c.Err() == nil {
			t.Fatalf("id %d is allowed after %q and then refused", id, out)
		}
		out = append(out, v.bytes[id]...)
	}
	return string(out), done
}

func FuzzRegexp(f *testing.F) {
	for _, p := range []string{`a*`, `(a|b){3}`, `[^x]+$`, `\pL`, `(?i)k`} {
		f.Add(p)
	}
	v := byteVocabulary()
	f.Fuzz(func(t *testing.T, p string) {
		g, err := Regexp(p)
		if err != nil || len(p) > 60 {
			return
		}
		re := regexp.MustCompile(p)
		re.Longest()
		s, done := wander(t, NewConstraint(g, v), v, uint64(len(p)))
		if at := re.FindStringIndex(s); done && (at == nil || at[0] > 0 || at[1] < len(s)) {
			t.Fatalf("%q was drawn under %q", s, p)
		}
	})
}

func FuzzJSONSchema(f *testing.F) {
	for _, s := range []string{`{"type":"object"}`, `{"enum":[1,"a"]}`, `{"$ref":"#"}`, `{"properties":{"a":{"$ref":"#"}}}`} {
		f.Add(s)
	}
	v := byteVocabulary()
	f.Fuzz(func(t *testing.T, s string) {
		g, err := JSONSchema([]byte(s))
		if err != nil || len(s) > 400 {
			return
		}
		if text, done := wander(t, NewConstraint(g, v), v, uint64(len(s))); done && !json.Valid([]byte(text)) {
			t.Fatalf("%q was drawn under %q", text, s)
		}
	})
}
