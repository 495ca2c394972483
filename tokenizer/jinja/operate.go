package jinja

import (
	"math"
	"math/big"
	"strings"
)

// asInt returns an integer (or bool) as an int.
func asInt(v any) (int, bool) {
	switch v := v.(type) {
	case int:
		return v, true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}

// asFloat returns a number as a float.
func asFloat(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case *big.Int:
		f, _ := new(big.Float).SetInt(v).Float64()
		return f, true
	}
	i, ok := asInt(v)
	return float64(i), ok
}

// asBig returns an integer of any size.
func asBig(v any) (*big.Int, bool) {
	if b, ok := v.(*big.Int); ok {
		return b, true
	}
	i, ok := asInt(v)
	return big.NewInt(int64(i)), ok
}

// shrink gives an int where one is enough.
func shrink(b *big.Int) any {
	if b.IsInt64() {
		return int(b.Int64())
	}
	if b.BitLen() > 4*maxDigits {
		fail("an integer of more than %d digits", maxDigits)
	}
	return b
}

func number(op string, v any) any {
	defined(v)
	if _, ok := asFloat(v); !ok {
		fail("bad operand type for unary %s: '%s'", op, kindOf(v))
	}
	if b, ok := v.(bool); ok {
		i, _ := asInt(b)
		return i
	}
	return v
}

// arithmetic is a op b.
func arithmetic(r *run, op string, a, b any) any {
	if op == "~" {
		return r.joined(text(a), text(b))
	}
	defined(a)
	defined(b)
	if s, ok := a.(string); ok && op == "%" {
		return format(s, b)
	}
	if v, ok := r.sequences(op, a, b); ok {
		return v
	}
	if x, ok := asBig(a); ok {
		if y, ok := asBig(b); ok {
			return integers(op, x, y)
		}
	}
	x, xok := asFloat(a)
	y, yok := asFloat(b)
	if !xok || !yok {
		fail("unsupported operand type(s) for %s: '%s' and '%s'", op, kindOf(a), kindOf(b))
	}
	return floats(op, x, y)
}

func (r *run) joined(a, b string) string {
	if len(a)+len(b) > maxOutput {
		fail("a string of more than %d bytes", maxOutput)
	}
	r.step((len(a) + len(b)) / 16)
	return a + b
}

// sequences adds strings and lists, and repeats them.
func (r *run) sequences(op string, a, b any) (any, bool) {
	switch op {
	case "+":
		switch a := a.(type) {
		case string:
			if b, ok := b.(string); ok {
				return r.joined(a, b), true
			}
		case []any:
			if b, ok := b.([]any); ok {
				return r.concat(a, b), true
			}
		case Tuple:
			if b, ok := b.(Tuple); ok {
				return Tuple(r.concat(a, b)), true
			}
		}
	case "*":
		if n, ok := asInt(a); ok {
			return r.repeat(b, n)
		}
		if n, ok := asInt(b); ok {
			return r.repeat(a, n)
		}
	}
	return nil, false
}

func (r *run) concat(a, b []any) []any {
	if len(a)+len(b) > maxItems {
		fail("a list of more than %d items", maxItems)
	}
	r.step(len(a) + len(b))
	return append(append(make([]any, 0, len(a)+len(b)), a...), b...)
}

func (r *run) repeat(v any, n int) (any, bool) {
	n = max(n, 0)
	if s := size(v); s > 0 && n > maxItems/s {
		fail("a repetition makes more than %d items", maxItems)
	}
	r.step(n * size(v))
	switch v := v.(type) {
	case string:
		return strings.Repeat(v, n), true
	case []any:
		return repeated(v, n), true
	case Tuple:
		return Tuple(repeated(v, n)), true
	}
	return nil, false
}

func repeated(v []any, n int) []any {
	if len(v) == 0 {
		n = 0
	}
	out := []any{}
	for range n {
		out = append(out, v...)
	}
	return out
}

func integers(op string, x, y *big.Int) any {
	z := new(big.Int)
	switch op {
	case "+":
		return shrink(z.Add(x, y))
	case "-":
		return shrink(z.Sub(x, y))
	case "*":
		return shrink(z.Mul(x, y))
	case "**":
		if y.Sign() < 0 {
			break
		}
		if x.BitLen() > 1 && (!y.IsInt64() || y.Int64() > int64(4*maxDigits/x.BitLen())) {
			fail("a power of more than %d digits", maxDigits)
		}
		return shrink(z.Exp(x, y, nil))
	case "//", "%":
		if y.Sign() == 0 {
			fail("integer division or modulo by zero")
		}
		m := new(big.Int)
		if z.QuoRem(x, y, m); m.Sign() != 0 && m.Sign() != y.Sign() { // Python rounds down
			z.Sub(z, big.NewInt(1))
			m.Add(m, y)
		}
		if op == "%" {
			return shrink(m)
		}
		return shrink(z)
	}
	a, _ := asFloat(x)
	b, _ := asFloat(y)
	return floats(op, a, b)
}

func floats(op string, x, y float64) any {
	if y == 0 && (op == "/" || op == "//" || op == "%") {
		fail("division by zero")
	}
	switch op {
	case "+":
		return x + y
	case "-":
		return x - y
	case "*":
		return x * y
	case "/":
		return x / y
	case "//":
		return math.Floor(x / y)
	case "%":
		if m := math.Mod(x, y); m != 0 && (m < 0) != (y < 0) {
			return m + y
		} else {
			return m
		}
	}
	if x == 0 && y < 0 {
		fail("0.0 cannot be raised to a negative power")
	}
	return math.Pow(x, y)
}

// equal is a == b.
func (r *run) equal(a, b any) bool {
	r.step(1)
	if x, ok := asBig(a); ok {
		if y, ok := asBig(b); ok {
			return x.Cmp(y) == 0
		}
	}
	if x, ok := asFloat(a); ok {
		y, ok := asFloat(b)
		return ok && x == y
	}
	switch a := a.(type) {
	case nil:
		return b == nil
	case string:
		b, ok := b.(string)
		return ok && a == b
	case undefined:
		_, ok := b.(undefined)
		return ok
	case []any:
		b, ok := b.([]any)
		return ok && r.equalLists(a, b)
	case Tuple:
		b, ok := b.(Tuple)
		return ok && r.equalLists(a, b)
	case span:
		b, ok := b.(span)
		return ok && (a == b || a.n == 0 && b.n == 0)
	case Object:
		b, ok := b.(Object)
		if !ok || len(a) != len(b) {
			return false
		}
		for _, m := range a {
			if x, ok := b.Get(m.Key); !ok || !r.equal(m.Value, x) {
				return false
			}
		}
		return true
	case *loop, *namespace:
		return a == b
	}
	return false
}

func (r *run) equalLists(a, b []any) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !r.equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// order compares a and b: numbers, strings, and lists of them.
func (r *run) order(op string, a, b any) int {
	r.step(1)
	defined(a)
	defined(b)
	if x, ok := asBig(a); ok {
		if y, ok := asBig(b); ok {
			return x.Cmp(y)
		}
	}
	x, xok := asFloat(a)
	y, yok := asFloat(b)
	if xok && yok {
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	}
	switch a := a.(type) {
	case string:
		if b, ok := b.(string); ok {
			return strings.Compare(a, b)
		}
	case []any:
		if b, ok := b.([]any); ok {
			return r.orderLists(op, a, b)
		}
	case Tuple:
		if b, ok := b.(Tuple); ok {
			return r.orderLists(op, a, b)
		}
	}
	fail("'%s' not supported between instances of '%s' and '%s'", op, kindOf(a), kindOf(b))
	return 0
}

func (r *run) orderLists(op string, a, b []any) int {
	for i := range min(len(a), len(b)) {
		if !r.equal(a[i], b[i]) {
			return r.order(op, a[i], b[i])
		}
	}
	return len(a) - len(b)
}

// contains is x in v.
func (r *run) contains(v, x any) bool {
	switch v := v.(type) {
	case string:
		s, ok := x.(string)
		if !ok {
			fail("'in <string>' requires string as left operand, not %s", kindOf(x))
		}
		r.step(len(v) / 16)
		return strings.Contains(v, s)
	case Object:
		s, ok := x.(string)
		if ok {
			_, ok = v.Get(s)
		}
		return ok
	case nil, bool, int, float64, *big.Int, function:
		fail("argument of type '%s' is not iterable", kindOf(v))
	}
	for _, item := range iterate(v) {
		if r.equal(item, x) {
			return true
		}
	}
	return false
}
