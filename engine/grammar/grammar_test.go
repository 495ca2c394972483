package grammar

import (
	"encoding/json"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const eos = 256

// byteVocabulary has a token for each byte, then the end of text, then words.
func byteVocabulary(words ...string) *Vocabulary {
	var tokens [][]byte
	for b := range 256 {
		tokens = append(tokens, []byte{byte(b)})
	}
	tokens = append(tokens, nil)
	for _, w := range words {
		tokens = append(tokens, []byte(w))
	}
	return NewVocabulary(tokens, []int32{eos})
}

// walk draws a text: a random allowed token each time, the end and a closing quote often.
func walk(t *testing.T, c *Constraint, v *Vocabulary, rng *rand.Rand) string {
	t.Helper()
	var out []byte
	mask := make([]uint32, (v.size+31)/32)
	for state := int32(0); ; {
		c.Allow(state, mask)
		var ids []int32
		for id := range int32(v.size) {
			if mask[id/32]>>(id%32)&1 == 1 {
				ids = append(ids, id)
			}
		}
		if len(ids) == 0 {
			t.Fatalf("nothing may follow %q", out)
		}
		id := ids[rng.IntN(len(ids))]
		for _, ends := range []int32{eos, '"', '}', ']'} {
			if slices.Contains(ids, ends) && rng.IntN(3) == 0 {
				id = ends
				break
			}
		}
		next, done, ok := c.Next(state, id)
		if !ok {
			t.Fatalf("id %d is allowed after %q and then refused", id, out)
		}
		out = append(out, v.bytes[id]...)
		if done {
			return string(out)
		}
		if state = next; len(out) > 1<<16 {
			t.Fatalf("no end in sight: %.200q", out)
		}
	}
}

// accepts reports whether the bytes of a text may be drawn one after another to its end.
func accepts(c *Constraint, s string) bool {
	state, done, ok := int32(0), false, true
	for i := range len(s) {
		if done {
			return false
		}
		if state, done, ok = c.Next(state, int32(s[i])); !ok {
			return false
		}
	}
	if !done {
		_, done, _ = c.Next(state, eos)
	}
	return done
}

// Whatever is drawn under a regular expression matches it by Go's regexp, and what matches can be drawn.
func TestRegexp(t *testing.T) {
	rng := rand.New(rand.NewPCG(rand.Uint64(), 0))
	v := byteVocabulary("ab", "abc", "é", "12", "\"")
	for _, p := range []string{`a`, `a*b+c?`, `(foo|bar|ba)z`, `[a-f]{2,4}`, `\d{3}-\d{4}`, `[^a-z]x`, `(a|ab)(c|bcd)`, `^anchored$`, `é+[à-ü]?`,
		`(?i)select`, `[\x{10000}-\x{10ffff}]{1,2}`, `.{0,3}`, `(a{0,2}b){1,3}`, `\p{Greek}+`, `a||b`, `(yes|no)?`} {
		g, err := Regexp(p)
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		want := regexp.MustCompile(`^(?:` + strings.TrimSuffix(strings.TrimPrefix(p, "^"), "$") + `)$`)
		c := NewConstraint(g, v)
		var drawn []string
		for range 60 {
			s := walk(t, c, v, rng)
			drawn = append(drawn, s)
			if !utf8.ValidString(s) || !want.MatchString(s) {
				t.Fatalf("%s: %q was drawn", p, s)
			}
		}
		for range 400 { // texts near to what matches
			b := []byte(drawn[rng.IntN(len(drawn))])
			for range rng.IntN(3) {
				if i := rng.IntN(len(b) + 1); i < len(b) && rng.IntN(2) == 0 {
					b[i] = "abcxyz019-é\""[rng.IntN(12)]
				} else {
					b = slices.Insert(b, i, "abcxyz019-"[rng.IntN(10)])
				}
			}
			if s := string(b); utf8.ValidString(s) && accepts(c, s) != want.MatchString(s) {
				t.Fatalf("%s: %q: accepted %v, Go's regexp says %v", p, s, accepts(c, s), want.MatchString(s))
			}
		}
		if err := c.Err(); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// Ranges of code points are split into bytes exactly.
func TestRunes(t *testing.T) {
	rng := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for range 60 {
		lo, hi := rng.Int32N(utf8.MaxRune+1), rng.Int32N(utf8.MaxRune+1)
		if rng.IntN(2) == 0 {
			lo, hi = lo%0x900, hi%0x900
		}
		lo, hi = min(lo, hi), max(lo, hi)
		parts := runes(lo, hi)
		if len(parts) == 0 {
			continue // surrogates only
		}
		g, err := compile(spelled(parts))
		if err != nil {
			t.Fatal(err)
		}
		c := NewConstraint(g, byteVocabulary())
		for range 500 {
			r := rng.Int32N(utf8.MaxRune + 1)
			if rng.IntN(2) == 0 {
				r = []rune{lo, hi, max(lo-1, 0), min(hi+1, utf8.MaxRune)}[rng.IntN(4)]
			}
			if valid := r < 0xd800 || r > 0xdfff; valid && accepts(c, string(r)) != (lo <= r && r <= hi) {
				t.Fatalf("%U in %U … %U: %v", r, lo, hi, accepts(c, string(r)))
			}
		}
	}
}

func TestRegexpRefuses(t *testing.T) {
	for p, want := range map[string]string{
		`(`: "missing", `a(?=b)`: "regular expression", `a$b`: "at its ends", `\bword`: "not supported", `[^\x00-\x{10FFFF}]`: "nothing",
		`((((a{99}){99}){99}){9})`: "expression",
	} {
		if _, err := Regexp(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", p, err, want)
		}
	}
	if _, err := Regexp(strings.Repeat("(abcdefgh){0,900}", 100)); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("an enormous expression: %v", err)
	}
}

// An expression whose states multiply is bounded in time: it is worked out as far as it is walked.
func TestRegexpBomb(t *testing.T) {
	g, err := Regexp(`(a|b)*a(a|b){40}`)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	v := byteVocabulary("ab", "ba", "aaaa", "abababab")
	c := NewConstraint(g, v)
	mask := make([]uint32, (v.size+31)/32)
	state := int32(0)
	for i := range 2000 {
		c.Allow(state, mask)
		var ok bool
		if state, _, ok = c.Next(state, int32("ab"[i%2])); !ok {
			t.Fatal("refused")
		}
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

// What is drawn under a schema is valid by it, as another implementation sees it.
func TestJSONSchema(t *testing.T) {
	rng := rand.New(rand.NewPCG(rand.Uint64(), 0))
	v := byteVocabulary(`":`, `{"`, `",`, "true", "nul", "é", `\"`)
	for _, s := range []string{
		`{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"}},"required":["name","age"]}`,
		`{"type":"object","properties":{"a":{"type":"number"},"b":{"type":"boolean"},"c":{"type":"null"}}}`,
		`{"type":"object","properties":{"a":{"const":1},"b":{"const":2},"c":{"const":3},"d":{"const":4}},"required":["b"],"additionalProperties":false}`,
		`{"properties":{"x":{"items":{"type":"integer"},"minItems":2,"maxItems":3}},"required":["x"]}`,
		`{"enum":["red","green",{"a":[1,2.50,null]},7]}`, `{"const":"a\"b\\c<"}`,
		`{"type":["string","null"],"maxLength":3}`, `{"type":"string","minLength":2,"maxLength":4}`,
		`{"type":"string","pattern":"^[a-z]+\"?$"}`, `{"type":"string","pattern":"^x*\\d\\\\"}`,
		`{"anyOf":[{"type":"integer"},{"type":"string","maxLength":1}]}`, `{"oneOf":[{"type":"integer"},{"type":"boolean"}]}`,
		`{"allOf":[{"type":"array","items":{"type":"boolean"}}]}`,
		`{"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"items":false}`,
		`{"type":"array","prefixItems":[{"type":"integer"}],"items":{"type":"boolean"},"minItems":3}`,
		`{"type":"object","additionalProperties":{"type":"integer"}}`, `{"type":"object","additionalProperties":false}`, `{"type":"object"}`,
		`{"$ref":"#/$defs/tree","$defs":{"tree":{"type":"object","properties":{"v":{"type":"integer"},"kids":{"type":"array","items":{"$ref":"#/$defs/tree"}}},"required":["v"]}}}`,
		`{"type":"object","properties":{"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},"required":["next"]}`,
		`{"type":"string","enum":[1,"a",null,"b"]}`, `{"type":["number","null"],"enum":[1,"a",null,2.5]}`, `{"type":"string","const":"a"}`,
		`{"type":"object","anyOf":[{"properties":{"a":{"type":"null"}},"required":["a"]},{"$ref":"#/$defs/b"}],"$defs":{"b":{"type":"object"}}}`,
		`{"type":"number","oneOf":[{"type":"integer"}]}`, `{"type":"array","allOf":[{"items":{"type":"null"}}]}`,
		`true`, `{}`, `{"type":"number"}`, `{"title":"t","description":"d","type":"array"}`,
	} {
		g, err := JSONSchema([]byte(s))
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(s))
		if err != nil {
			t.Fatal(err)
		}
		compiler := jsonschema.NewCompiler()
		if err := compiler.AddResource("s.json", doc); err != nil {
			t.Fatal(err)
		}
		valid, err := compiler.Compile("s.json")
		if err != nil {
			t.Fatal(err)
		}
		c := NewConstraint(g, v)
		for range 40 {
			text := walk(t, c, v, rng)
			value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
			if err == nil {
				err = valid.Validate(value)
			}
			if err != nil {
				t.Fatalf("%s: %q was drawn: %v", s, text, err)
			}
		}
	}
}

func TestJSONObject(t *testing.T) {
	rng := rand.New(rand.NewPCG(rand.Uint64(), 0))
	v := byteVocabulary()
	c := NewConstraint(JSONObject(), v)
	for range 60 {
		var m map[string]any
		if text := walk(t, c, v, rng); json.Unmarshal([]byte(text), &m) != nil {
			t.Fatalf("%q is no object", text)
		}
	}
	for s, want := range map[string]bool{`{"a": [1, {"b":"\"\u0001x"}]}`: true, `{}`: true, `[]`: false, `{"a":01}`: false, `{"a":1,}`: false, "{\"a\":\"\n\"}": false} {
		if accepts(c, s) != want {
			t.Errorf("%q: accepted %v", s, !want)
		}
	}
}

func TestJSONSchemaRefuses(t *testing.T) {
	for s, want := range map[string]string{
		`{"type":"integer","minimum":3}`: "minimum", `{"not":{}}`: "not", `{"type":"object","patternProperties":{}}`: "patternProperties",
		`{"type":"array","uniqueItems":true}`: "uniqueItems", `{"type":"text"}`: "text", `{"enum":[]}`: "enum", `false`: "allows nothing",
		`{"type":"array","minItems":3,"maxItems":2}`: "impossible", `{"type":"string","minLength":3,"maxLength":2}`: "impossible",
		`{"oneOf":[{"type":"integer"},{"type":"number"}]}`: "anyOf", `{"oneOf":[{"const":1},{"type":"number"}]}`: "anyOf",
		`{"$ref":"#/$defs/x"}`: "nothing at", `{"$ref":"http://x"}`: "within", `{"properties":{"a":{}},"required":["b"]}`: `"b"`,
		`{"anyOf":[{}],"minLength":2}`: "beside", `{"allOf":[{},{}]}`: "one schema", `{"type":"string","pattern":"("}`: "pattern",
		`{`: "unexpected", `{} {}`: "follows", `{"type":"string","maxLength":99999999}`: "maxLength", `{"type":"string","maxLength":-1}`: "maxLength",
		`{"type":"string","const":5}`: "no string", `{"type":"string","enum":[5,null]}`: "no value is a string",
		`{"type":"object","anyOf":[{"type":"object"},{"type":"null"}]}`: "beside anyOf", `{"type":"object","$ref":"#/$defs/a","$defs":{"a":{}}}`: "beside $ref",
		`{"type":"null","$ref":"#"}`: "beside $ref", `{"type":"integer","const":1.5}`: "no integer",
		`{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/a"}}}`:                  "no answer at all",
		`{"type":"object","properties":{"next":{"$ref":"#"}},"required":["next"]}`: "no answer at all",
		`{"type":"array","items":{"$ref":"#"},"minItems":1}`:                       "no answer at all", `{"a":1,"a":2}`: "twice",
		`{"type":"array","items":{"type":"string","maxLength":120000},"minItems":100}`: "too large",
	} {
		if _, err := JSONSchema([]byte(s)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", s, err, want)
		}
	}
}
