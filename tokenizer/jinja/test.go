package jinja

import (
	"math/big"
	"slices"
	"strings"
)

func applyTest(f *frame, name string, v any, a args) bool {
	k, ok := tests[name]
	if !ok {
		fail("no test named '%s'", name)
	}
	return k(v, a)
}

// arg is the one argument of a test.
func arg(a args) any {
	if len(a.pos) != 1 {
		fail("a test got %d arguments, one expected", len(a.pos))
	}
	return a.pos[0]
}

var tests map[string]func(v any, a args) bool

func init() {
	compare := func(op string) func(v any, a args) bool {
		return func(v any, a args) bool { return comparisons[op](v, arg(a)) }
	}
	tests = map[string]func(v any, a args) bool{
		"boolean":  func(v any, _ args) bool { _, ok := v.(bool); return ok },
		"callable": func(v any, _ args) bool { _, ok := v.(function); return ok },
		"defined":  func(v any, _ args) bool { _, gone := v.(undefined); return !gone },
		"divisibleby": func(v any, a args) bool {
			return equal(arithmetic("%", v, arg(a)), 0)
		},
		"even":    func(v any, _ args) bool { return equal(arithmetic("%", v, 2), 0) },
		"odd":     func(v any, _ args) bool { return equal(arithmetic("%", v, 2), 1) },
		"false":   func(v any, _ args) bool { return v == any(false) },
		"true":    func(v any, _ args) bool { return v == any(true) },
		"filter":  func(v any, _ args) bool { _, ok := filters[text(v)]; return ok },
		"float":   func(v any, _ args) bool { _, ok := v.(float64); return ok },
		"in":      func(v any, a args) bool { return contains(arg(a), v) },
		"integer": func(v any, _ args) bool { return kindOf(v) == "int" },
		"iterable": func(v any, _ args) bool {
			return slices.Contains([]string{"str", "list", "tuple", "dict", "Undefined", "dict view", "generator", "range"}, kindOf(v))
		},
		"lower": func(v any, _ args) bool {
			s := text(v)
			return s == strings.ToLower(s) && s != strings.ToUpper(s)
		},
		"upper": func(v any, _ args) bool {
			s := text(v)
			return s == strings.ToUpper(s) && s != strings.ToLower(s)
		},
		"mapping": func(v any, _ args) bool { _, ok := v.(Object); return ok },
		"none":    func(v any, _ args) bool { return v == nil },
		"number":  func(v any, _ args) bool { _, ok := real(v); return ok },
		"sameas":  func(v any, a args) bool { return identical(v, arg(a)) },
		"sequence": func(v any, _ args) bool {
			return slices.Contains([]string{"str", "list", "tuple", "dict", "Undefined", "range"}, kindOf(v))
		},
		"string":    func(v any, _ args) bool { _, ok := v.(string); return ok },
		"test":      func(v any, _ args) bool { _, ok := tests[text(v)]; return ok },
		"undefined": func(v any, _ args) bool { _, gone := v.(undefined); return gone },
		"escaped":   func(any, args) bool { return false },
	}
	for op, names := range map[string][]string{
		"==": {"==", "eq", "equalto"}, "!=": {"!=", "ne"},
		"<": {"<", "lt", "lessthan"}, "<=": {"<=", "le"},
		">": {">", "gt", "greaterthan"}, ">=": {">=", "ge"},
	} {
		for _, name := range names {
			tests[name] = compare(op)
		}
	}
}

// identical is Python's a is b, as far as it is the same everywhere.
func identical(a, b any) bool {
	switch a.(type) {
	case nil, bool, int, string:
		return a == b
	case *big.Int, *loop, *namespace:
		return a == b
	}
	return false
}
