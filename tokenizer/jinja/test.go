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
	return k(f.run, v, a)
}

// arg is the one argument of a test.
func arg(a args) any {
	if len(a.pos) != 1 {
		fail("a test got %d arguments, one expected", len(a.pos))
	}
	return a.pos[0]
}

var tests map[string]func(r *run, v any, a args) bool

func init() {
	compare := func(op string) func(r *run, v any, a args) bool {
		return func(r *run, v any, a args) bool { return comparisons[op](r, v, arg(a)) }
	}
	tests = map[string]func(r *run, v any, a args) bool{
		"boolean":  func(_ *run, v any, _ args) bool { _, ok := v.(bool); return ok },
		"callable": func(_ *run, v any, _ args) bool { _, ok := v.(function); return ok },
		"defined":  func(_ *run, v any, _ args) bool { _, gone := v.(undefined); return !gone },
		"divisibleby": func(r *run, v any, a args) bool {
			return r.equal(arithmetic(r, "%", v, arg(a)), 0)
		},
		"even":    func(r *run, v any, _ args) bool { return r.equal(arithmetic(r, "%", v, 2), 0) },
		"odd":     func(r *run, v any, _ args) bool { return r.equal(arithmetic(r, "%", v, 2), 1) },
		"false":   func(_ *run, v any, _ args) bool { return v == any(false) },
		"true":    func(_ *run, v any, _ args) bool { return v == any(true) },
		"filter":  func(_ *run, v any, _ args) bool { _, ok := filters[text(v)]; return ok },
		"float":   func(_ *run, v any, _ args) bool { _, ok := v.(float64); return ok },
		"in":      func(r *run, v any, a args) bool { return r.contains(arg(a), v) },
		"integer": func(_ *run, v any, _ args) bool { return kindOf(v) == "int" },
		"iterable": func(_ *run, v any, _ args) bool {
			return slices.Contains([]string{"str", "list", "tuple", "dict", "Undefined", "dict view", "generator", "range"}, kindOf(v))
		},
		"lower": func(_ *run, v any, _ args) bool {
			s := text(v)
			return s == strings.ToLower(s) && s != strings.ToUpper(s)
		},
		"upper": func(_ *run, v any, _ args) bool {
			s := text(v)
			return s == strings.ToUpper(s) && s != strings.ToLower(s)
		},
		"mapping": func(_ *run, v any, _ args) bool { _, ok := v.(Object); return ok },
		"none":    func(_ *run, v any, _ args) bool { return v == nil },
		"number":  func(_ *run, v any, _ args) bool { _, ok := asFloat(v); return ok },
		"sameas":  func(_ *run, v any, a args) bool { return identical(v, arg(a)) },
		"sequence": func(_ *run, v any, _ args) bool {
			return slices.Contains([]string{"str", "list", "tuple", "dict", "Undefined", "range"}, kindOf(v))
		},
		"string":    func(_ *run, v any, _ args) bool { _, ok := v.(string); return ok },
		"test":      func(_ *run, v any, _ args) bool { _, ok := tests[text(v)]; return ok },
		"undefined": func(_ *run, v any, _ args) bool { _, gone := v.(undefined); return gone },
		"escaped":   func(*run, any, args) bool { return false },
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
