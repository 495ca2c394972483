package jinja

import (
	"slices"
	"strings"
	"unicode"
)

// dictMethod returns a method of a dict, nil if it has none of that name. Those
// that would change it do not exist, as in Jinja2's immutable sandbox.
func dictMethod(o Object, name string) function {
	switch name {
	case "items":
		return func(*frame, args) any { return pairs(o) }
	case "keys":
		return func(*frame, args) any { return view(iterate(o)) }
	case "values":
		return func(*frame, args) any {
			values := make(view, len(o))
			for i, m := range o {
				values[i] = m.Value
			}
			return values
		}
	case "get":
		return func(_ *frame, a args) any {
			if key, ok := a.at(0, "key", nil).(string); ok {
				if v, ok := o.Get(key); ok {
					return v
				}
			}
			return a.at(1, "default", nil)
		}
	case "copy":
		return func(*frame, args) any { return slices.Clone(o) }
	case "clear", "pop", "popitem", "setdefault", "update":
		return unsafe("dict", name)
	}
	return nil
}

func pairs(o Object) view {
	items := make(view, len(o))
	for i, m := range o {
		items[i] = Tuple{m.Key, m.Value}
	}
	return items
}

func unsafe(kind, name string) function {
	return func(*frame, args) any {
		fail("access to attribute '%s' of '%s' object is unsafe", name, kind)
		return nil
	}
}

// method returns a method of a string, list or number, nil if it has none of
// that name.
func method(v any, name string) function {
	switch v := v.(type) {
	case string:
		if m, ok := stringMethods[name]; ok {
			return func(f *frame, a args) any {
				f.run.step(1 + len(v)/16)
				out := m(v, a)
				f.run.step(size(out) / 16)
				return out
			}
		}
	case []any:
		switch name {
		case "append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort":
			return unsafe("list", name)
		case "copy":
			return func(*frame, args) any { return slices.Clone(v) }
		}
		return listMethod(v, name)
	case Tuple:
		return listMethod(v, name)
	case float64:
		if name == "is_integer" {
			return func(*frame, args) any { return v == float64(int64(v)) }
		}
	}
	return nil
}

func listMethod(v []any, name string) function {
	switch name {
	case "index":
		return func(f *frame, a args) any {
			for i, x := range v {
				if f.run.equal(x, a.at(0, "value", nil)) {
					return i
				}
			}
			fail("%s is not in list", text(a.at(0, "value", nil)))
			return nil
		}
	case "count":
		return func(f *frame, a args) any {
			n := 0
			for _, x := range v {
				if f.run.equal(x, a.at(0, "value", nil)) {
					n++
				}
			}
			return n
		}
	}
	return nil
}

// strArg is an argument that has to be a string, or is absent.
func strArg(a args, i int, name string) (string, bool) {
	switch v := a.at(i, name, nil).(type) {
	case nil:
		return "", false
	case string:
		return v, true
	default:
		fail("argument %s must be str, not %s", name, kindOf(v))
		return "", false
	}
}

// needStr is a string that has to be there.
func needStr(a args, i int, name string) string {
	s, ok := strArg(a, i, name)
	if !ok {
		fail("argument %s must be str, not None", name)
	}
	return s
}

func intArg(a args, i int, name string, otherwise int) int {
	v := a.at(i, name, otherwise)
	n, ok := asInt(v)
	if !ok {
		fail("argument %s must be int, not %s", name, kindOf(v))
	}
	return n
}

var stringMethods map[string]func(s string, a args) any

func init() {
	stringMethods = map[string]func(s string, a args) any{
		"upper":        func(s string, _ args) any { return upper(s) },
		"lower":        func(s string, _ args) any { return lower(s) },
		"casefold":     func(s string, _ args) any { return fold(s) },
		"capitalize":   func(s string, _ args) any { return capitalize(s) },
		"title":        func(s string, _ args) any { return title(s) },
		"swapcase":     func(s string, _ args) any { return strings.Map(swapCase, s) },
		"strip":        func(s string, a args) any { return strip(s, a, true, true) },
		"lstrip":       func(s string, a args) any { return strip(s, a, true, false) },
		"rstrip":       func(s string, a args) any { return strip(s, a, false, true) },
		"split":        func(s string, a args) any { return split(s, a) },
		"rsplit":       func(s string, a args) any { return rsplit(s, a) },
		"splitlines":   func(s string, a args) any { return splitLines(s, truth(a.at(0, "keepends", false))) },
		"partition":    func(s string, a args) any { return partition(s, needStr(a, 0, "sep")) },
		"rpartition":   func(s string, a args) any { return rpartition(s, needStr(a, 0, "sep")) },
		"startswith":   func(s string, a args) any { return affixed(s, a, strings.HasPrefix) },
		"endswith":     func(s string, a args) any { return affixed(s, a, strings.HasSuffix) },
		"removeprefix": func(s string, a args) any { return strings.TrimPrefix(s, needStr(a, 0, "prefix")) },
		"removesuffix": func(s string, a args) any { return strings.TrimSuffix(s, needStr(a, 0, "suffix")) },
		"replace": func(s string, a args) any {
			return replace(s, needStr(a, 0, "old"), needStr(a, 1, "new"), intArg(a, 2, "count", -1))
		},
		"find":  func(s string, a args) any { return find(s, needStr(a, 0, "sub"), strings.Index) },
		"rfind": func(s string, a args) any { return find(s, needStr(a, 0, "sub"), strings.LastIndex) },
		"index": func(s string, a args) any {
			at := find(s, needStr(a, 0, "sub"), strings.Index)
			if at < 0 {
				fail("substring not found")
			}
			return at
		},
		"count":     func(s string, a args) any { return strings.Count(s, needStr(a, 0, "sub")) },
		"join":      func(s string, a args) any { return join(s, iterate(a.at(0, "iterable", nil)), true) },
		"format":    func(s string, a args) any { return braces(s, a) },
		"zfill":     func(s string, a args) any { return zfill(s, intArg(a, 0, "width", 0)) },
		"ljust":     func(s string, a args) any { return pad(s, a, 0, 1) },
		"rjust":     func(s string, a args) any { return pad(s, a, 1, 0) },
		"center":    func(s string, a args) any { return pad(s, a, 1, 1) },
		"isalpha":   func(s string, _ args) any { return every(s, unicode.IsLetter) },
		"isdigit":   func(s string, _ args) any { return every(s, unicode.IsDigit) },
		"isdecimal": func(s string, _ args) any { return every(s, unicode.IsDigit) },
		"isnumeric": func(s string, _ args) any { return every(s, unicode.IsNumber) },
		"isspace":   func(s string, _ args) any { return every(s, unicode.IsSpace) },
		"isalnum": func(s string, _ args) any {
			return every(s, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) })
		},
		"islower": func(s string, _ args) any { return s != strings.ToUpper(s) && s == strings.ToLower(s) },
		"isupper": func(s string, _ args) any { return s != strings.ToLower(s) && s == strings.ToUpper(s) },
	}
}
