package jinja

import (
	"math"
	"math/big"
	"strconv"
	"strings"
)

func absolute(v any) any {
	if x, ok := asBig(v); ok {
		return shrink(new(big.Int).Abs(x))
	}
	x, ok := asFloat(v)
	if !ok {
		fail("bad operand type for abs(): '%s'", kindOf(v))
	}
	return math.Abs(x)
}

func toFloat(v, otherwise any) any {
	if x, ok := asFloat(v); ok {
		return x
	}
	if s, ok := v.(string); ok {
		if x, err := strconv.ParseFloat(strings.TrimSpace(s), 64); err == nil {
			return x
		}
	}
	return otherwise
}

func toInt(v any, a args) any {
	if x, ok := asBig(v); ok {
		return shrink(x)
	}
	if s, ok := v.(string); ok {
		s = strings.ReplaceAll(strings.TrimSpace(s), "_", "")
		base := intArg(a, 1, "base", 10)
		if base < 2 || base > 36 {
			base = 10
		}
		digits := s
		if p, ok := map[int]string{2: "0b", 8: "0o", 16: "0x"}[base]; ok {
			digits = strings.TrimPrefix(strings.ToLower(s), p)
		}
		if x, ok := new(big.Int).SetString(digits, base); ok && len(s) <= maxDigits {
			return shrink(x)
		}
	}
	if x, ok := toFloat(v, nil).(float64); ok && !math.IsNaN(x) && !math.IsInf(x, 0) {
		i, _ := big.NewFloat(x).Int(nil)
		return shrink(i)
	}
	return a.at(0, "default", 0)
}

func round(v any, a args) any {
	x, ok := asFloat(v)
	if !ok {
		fail("type %s doesn't define __round__ method", kindOf(v))
	}
	digits := intArg(a, 0, "precision", 0)
	scale := math.Pow(10, float64(digits))
	switch method, _ := a.at(1, "method", "common").(string); method {
	case "common":
		if _, isInt := asBig(v); isInt && digits >= 0 {
			return v
		}
		if digits < 0 {
			r := math.RoundToEven(x*scale) / scale
			if _, isInt := asBig(v); isInt {
				return toInt(r, args{})
			}
			return r
		}
		r, _ := strconv.ParseFloat(strconv.FormatFloat(x, 'f', min(digits, 400), 64), 64)
		return r
	case "ceil":
		return math.Ceil(x*scale) / scale
	case "floor":
		return math.Floor(x*scale) / scale
	}
	fail("method must be common, ceil or floor")
	return nil
}
