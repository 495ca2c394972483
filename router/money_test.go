package router

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"pgregory.net/rapid"
)

// exact is the number of units of 10^-places in a decimal text, by math/big.
func exact(t interface{ Fatalf(string, ...any) }, s string, places int64) *big.Int {
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		t.Fatalf("math/big does not read %q", s)
	}
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(places), nil)))
	if !r.IsInt() {
		t.Fatalf("%q has more than %d places", s, places)
	}
	return r.Num()
}

func TestMoneyAgainstBig(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole := rapid.Int64Range(0, 9_000_000).Draw(t, "whole")
		frac := rapid.StringMatching(`[0-9]{0,12}`).Draw(t, "frac")
		s := fmt.Sprint(whole)
		if frac != "" {
			s += "." + frac
		}
		m, err := ParseMoney(s)
		if err != nil {
			t.Fatal(err)
		}
		if want := exact(t, s, 12); want.Cmp(big.NewInt(int64(m))) != 0 {
			t.Fatalf("%s dollars are %v picodollars, got %d", s, want, m)
		}
		if back, err := ParseMoney(m.String()); err != nil || back != m {
			t.Fatalf("%d written as %v is read as %d, %v", m, m, back, err)
		}
		b, _ := json.Marshal(m)
		var j Money
		if err := json.Unmarshal(b, &j); err != nil || j != m {
			t.Fatalf("%d as JSON %s is read as %d, %v", m, b, j, err)
		}
	})
}

func TestCostAgainstBig(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, out := rapid.IntRange(0, 1<<40).Draw(t, "in"), rapid.IntRange(0, 1<<40).Draw(t, "out")
		pin, pout := rapid.StringMatching(`[0-9]{1,3}(\.[0-9]{1,6})?`).Draw(t, "pin"), rapid.StringMatching(`[0-9]{1,3}\.[0-9]{2}`).Draw(t, "pout")
		var p Price
		for _, x := range []struct {
			r *Rate
			s string
		}{{&p.Input, pin}, {&p.Output, pout}} {
			r, err := ParseRate(x.s)
			if err != nil {
				t.Fatal(err)
			}
			if y, err := ParseRate(r.String()); err != nil || y != r {
				t.Fatalf("rate %q: %d is written %v and read %d, %v", x.s, r, r, y, err)
			}
			*x.r = r
		}
		// dollars per million tokens × tokens / 10⁶, in picodollars
		want := new(big.Int).Mul(exact(t, pin, 6), big.NewInt(int64(in)))
		want.Add(want, new(big.Int).Mul(exact(t, pout, 6), big.NewInt(int64(out))))
		if max := big.NewInt(int64(MaxMoney)); want.Cmp(max) > 0 {
			want = max
		}
		if got := p.Cost(in, out); want.Cmp(big.NewInt(int64(got))) != 0 {
			t.Fatalf("%d at %s and %d at %s: got %d, want %v", in, pin, out, pout, got, want)
		}
	})
}

func TestParseMoneyRefuses(t *testing.T) {
	for _, s := range []string{"", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", " 1", "NaN", "0x10", "1_0", "0.0000000000001", "9223373", strings.Repeat("9", 40)} {
		if m, err := ParseMoney(s); err == nil {
			t.Errorf("ParseMoney(%q) = %d, want an error", s, m)
		}
	}
	if _, err := ParseRate("0.0000001"); err == nil {
		t.Error("a rate with seven places is not refused")
	}
	if m, err := ParseMoney("9223372.036854775807"); err != nil || m != MaxMoney {
		t.Errorf("the largest amount: %d, %v", m, err)
	}
}

func TestPriceFromYAML(t *testing.T) {
	type file struct {
		Price Price
		USD   *Money
	}
	var p file
	if err := yaml.UnmarshalWithOptions([]byte("price: {input: 2.50, output: 10}\nusd: 0.05\n"), &p, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if p.Price != (Price{2_500_000, 10_000_000}) || *p.USD != Dollar/20 {
		t.Errorf("got %+v, %v", p.Price, *p.USD)
	}
	b, err := yaml.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back file
	if err := yaml.Unmarshal(b, &back); err != nil || back.Price != p.Price || *back.USD != *p.USD {
		t.Errorf("written\n%s\nand read as %+v, %v", b, back, err)
	}
	for _, bad := range []string{"price: {input: -1}", "price: {input: cheap}", "price: {input: 1e3}"} {
		if err := yaml.Unmarshal([]byte(bad), &back); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
	// GPT-4o of the method's table: a million tokens in cost 2.50 dollars
	if c := p.Price.Cost(1_000_000, 0); c.String() != "2.50" || c != 2*Dollar+Dollar/2 {
		t.Errorf("a million tokens cost %v", c)
	}
}
