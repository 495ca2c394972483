package router

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// Money is an amount in picodollars (10⁻¹² USD). It is exact; sums that do not fit stop at MaxMoney, which no
// budget allows. As text and JSON it is a decimal number of dollars.
type Money int64

const (
	Dollar   Money = 1e12
	MaxMoney Money = math.MaxInt64 // 9.2 million dollars
)

// A Rate is the price of a token in picodollars, which is the price of a million tokens in microdollars.
// As text and JSON it is a decimal number of dollars per million tokens, with at most six places.
type Rate int64

// Times is the price of n tokens.
func (r Rate) Times(n int) Money {
	if n <= 0 || r <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(r), uint64(n))
	if hi != 0 || lo > math.MaxInt64 {
		return MaxMoney
	}
	return Money(lo)
}

// Plus is the sum of two amounts that are not negative.
func (m Money) Plus(o Money) Money {
	if m > MaxMoney-o {
		return MaxMoney
	}
	return m + o
}

// ParseMoney reads a number of dollars such as 0.05, exactly.
func ParseMoney(s string) (Money, error) {
	n, err := parseDecimal(s, 12)
	if err != nil {
		return 0, fmt.Errorf("dollars %q: %w", s, err)
	}
	return Money(n), nil
}

// ParseRate reads a number of dollars per million tokens such as 2.50, exactly.
func ParseRate(s string) (Rate, error) {
	n, err := parseDecimal(s, 6)
	if err != nil {
		return 0, fmt.Errorf("dollars per million tokens %q: %w", s, err)
	}
	return Rate(n), nil
}

// String writes dollars with as many places as the amount has, and at least two.
func (m Money) String() string { return formatDecimal(int64(m), 12, 2) }

// String writes dollars per million tokens.
func (r Rate) String() string { return formatDecimal(int64(r), 6, 2) }

func (m Money) MarshalJSON() ([]byte, error) { return []byte(formatDecimal(int64(m), 12, 0)), nil }
func (r Rate) MarshalJSON() ([]byte, error)  { return []byte(formatDecimal(int64(r), 6, 0)), nil }

func (m *Money) UnmarshalJSON(b []byte) error { return m.UnmarshalText(b) }
func (r *Rate) UnmarshalJSON(b []byte) error  { return r.UnmarshalText(b) }

// MarshalText and UnmarshalText serve YAML.
func (m Money) MarshalText() ([]byte, error) { return []byte(m.String()), nil }
func (r Rate) MarshalText() ([]byte, error)  { return []byte(r.String()), nil }

func (m *Money) UnmarshalText(b []byte) (err error) {
	*m, err = ParseMoney(string(b))
	return err
}

func (r *Rate) UnmarshalText(b []byte) (err error) {
	*r, err = ParseRate(string(b))
	return err
}

// parseDecimal reads digits[.digits] as a whole number of 10^-places.
func parseDecimal(s string, places int) (int64, error) {
	whole, frac, dot := strings.Cut(s, ".")
	if whole == "" || dot && frac == "" {
		return 0, errors.New("want digits, such as 2.50")
	}
	if trimmed := strings.TrimRight(frac, "0"); len(trimmed) > places {
		return 0, fmt.Errorf("more than %d decimal places", places)
	} else {
		frac = trimmed + strings.Repeat("0", places-len(trimmed))
	}
	var n uint64
	for _, c := range whole + frac {
		if c < '0' || c > '9' {
			return 0, errors.New("want digits, such as 2.50")
		}
		hi, lo := bits.Mul64(n, 10)
		n = lo + uint64(c-'0')
		if hi != 0 || n > math.MaxInt64 {
			return 0, errors.New("too large")
		}
	}
	return int64(n), nil
}

// formatDecimal writes n·10^-places with at least least decimal places and no other trailing zeros.
func formatDecimal(n int64, places, least int) string {
	sign, u := "", uint64(n)
	if n < 0 {
		sign, u = "-", -u
	}
	s := fmt.Sprintf("%0*d", places+1, u)
	whole, frac := s[:len(s)-places], s[len(s)-places:]
	for len(frac) > least && frac[len(frac)-1] == '0' {
		frac = frac[:len(frac)-1]
	}
	if frac == "" {
		return sign + whole
	}
	return sign + whole + "." + frac
}
