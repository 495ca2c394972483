package grammar

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// Where a value may hold itself without end, only what leads out again is allowed.
func TestNoBlindAlley(t *testing.T) {
	g, err := JSONSchema([]byte(`{"type":"object","properties":{"a":{"anyOf":[{"$ref":"#/$defs/endless"},{"type":"null"}]},"b":{"$ref":"#/$defs/endless"}},
		"$defs":{"endless":{"type":"object","properties":{"x":{"$ref":"#/$defs/endless"}},"required":["x"]}}}`))
	if err != nil {
		t.Fatal(err)
	}
	c := NewConstraint(g, byteVocabulary())
	for s, want := range map[string]bool{`{}`: true, `{"a":null}`: true} {
		if accepts(c, s) != want {
			t.Errorf("%s: accepted %v", s, !want)
		}
	}
	state := int32(0)
	for i, b := range []byte(`{"a":`) {
		next, _, ok := c.Next(state, int32(b))
		if !ok {
			t.Fatalf("byte %d is refused", i)
		}
		state = next
	}
	mask := make([]uint32, (256+1+31)/32)
	c.Allow(state, mask)
	if mask['{'/32]>>('{'%32)&1 == 1 {
		t.Error("a brace is allowed where no object can be completed")
	}
	if _, _, ok := c.Next(1, 'b'); ok {
		t.Error("a property is allowed that can have no value")
	}
}

// Each of these would take more memory or time than there is, if it were worked out in full. It is refused,
// or ends with an error, soon.
func TestBombs(t *testing.T) {
	begin := time.Now()
	v := byteVocabulary("ab", "ba", "aaaa", "abababab", "xxx", "x x", "é")
	rng := rand.New(rand.NewPCG(1, 2))
	for name, c := range map[string]struct {
		pattern, schema string
		refused         string // "": it is taken, and may end with an error later
	}{
		"doubling":          {pattern: `(a|b)*a(a|b){900}`},
		"doubling, any":     {pattern: `(.|\n)*x(.|\n){1000}`},
		"nested repeats":    {pattern: `((a{0,30}){0,30}){0,1}(b{0,900}c{0,900}){0,1}`},
		"empty loops":       {pattern: `((a*)*)*((b*)*)*c`},
		"letters":           {pattern: `(\pL|\pN){0,1000}`},
		"a long pattern":    {pattern: strings.Repeat("a", 70000), refused: "at most 65536"},
		"many alternatives": {pattern: strings.TrimSuffix(strings.Repeat("(a*b*c*d*)*|", 3000), "|"), refused: "ambiguous"},
		"a deep pattern":    {pattern: strings.Repeat("(", 20000) + "a" + strings.Repeat(")", 20000), refused: "expression"},
		"a long schema":     {schema: `{"title":"` + strings.Repeat("a", 1<<20) + `"}`, refused: "at most 1048576"},
		"many values":       {schema: `{"enum":["` + strings.Repeat(strings.Repeat("a", 90)+`","`, 3000) + `"]}`, refused: "too large"},
		"one long value":    {schema: `{"const":"` + strings.Repeat("a", 500000) + `"}`, refused: "too large"},
		"many optional ones": {schema: `{"properties":{"a":{}` + func() (s string) {
			for i := range 2500 {
				s += fmt.Sprintf(`,"p%d":{}`, i)
			}
			return s
		}() + `}}`},
		"lists of lists": {schema: `{"type":"array","maxItems":9000,"items":{"type":"array","maxItems":9000,"items":{"type":"string","maxLength":9000}}}`},
	} {
		var g *Grammar
		var err error
		if c.pattern != "" {
			g, err = Regexp(c.pattern)
		} else {
			g, err = JSONSchema([]byte(c.schema))
		}
		if (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%s: %.300v, want %q", name, err, c.refused)
		}
		if err != nil {
			continue
		}
		f := NewConstraint(g, v)
		mask := make([]uint32, (v.size+31)/32)
		state := int32(0)
		for range 300 {
			f.Allow(state, mask)
			var ids []int32
			for id := range int32(v.size) {
				if mask[id/32]>>(id%32)&1 == 1 && id != eos {
					ids = append(ids, id)
				}
			}
			if len(ids) == 0 {
				break
			}
			state, _, _ = f.Next(state, ids[rng.IntN(len(ids))])
		}
		if f.m.bytes > 2*manyBytes {
			t.Errorf("%s: %d bytes of states", name, f.m.bytes)
		}
	}
	if took := time.Since(begin); took > 60*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A form that is used for ever more texts is full before it fails.
func TestFull(t *testing.T) {
	v := byteVocabulary()
	c := NewConstraint(JSONObject(), v)
	mask := make([]uint32, (v.size+31)/32)
	rng := rand.New(rand.NewPCG(3, 4))
	for texts := 0; !c.Full(); texts++ {
		state := int32(0)
		for _, b := range []byte(`{"":`) {
			state, _, _ = c.Next(state, int32(b))
		}
		for range 3000 { // a nest of lists and objects that is like no other
			for _, b := range []byte([]string{`[`, `{"":`}[rng.IntN(2)]) {
				state, _, _ = c.Next(state, int32(b))
			}
		}
		c.Allow(state, mask)
		if err := c.Err(); err != nil || mask['{'/32]>>('{'%32)&1 == 0 {
			t.Fatalf("text %d: %v", texts, err)
		}
	}
}

// An enumeration of many values is taken as a tree.
func TestManyValues(t *testing.T) {
	var all []string
	for i := range 9000 {
		all = append(all, fmt.Sprintf(`"value %d"`, i*7))
	}
	g, err := JSONSchema([]byte(`{"enum":[` + strings.Join(all, ",") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	c := NewConstraint(g, byteVocabulary())
	for s, want := range map[string]bool{all[0]: true, all[8999]: true, all[77]: true, `"value 8"`: false, `"value 62993`: false} {
		if accepts(c, s) != want {
			t.Errorf("%s: accepted %v", s, !want)
		}
	}
}
