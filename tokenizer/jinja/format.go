package jinja

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// formatted is the format filter: % with its arguments.
func formatted(s string, a args) string {
	if len(a.named) > 0 {
		if len(a.pos) > 0 {
			fail("can't handle positional and keyword arguments at the same time")
		}
		return format(s, a.named)
	}
	return format(s, Tuple(a.pos))
}

var verb = regexp.MustCompile(`%(?:\((\w*)\))?([-+ #0]*)(\d*)(?:\.(\d+))?(.|$)`)

// format is Python's s % v for the conversions s, r, d, i, f, e, g, x, X, o, c and %.
func format(s string, v any) string {
	rest, isTuple := v.(Tuple)
	if !isTuple {
		rest = Tuple{v}
	}
	out := verb.ReplaceAllStringFunc(s, func(m string) string {
		p := verb.FindStringSubmatch(m)
		if p[5] == "%" {
			return "%"
		}
		var x any
		if p[1] != "" {
			o, ok := v.(Object)
			if !ok {
				fail("format requires a mapping")
			}
			if x, ok = o.Get(p[1]); !ok {
				fail("KeyError: '%s'", p[1])
			}
			rest = nil
		} else {
			if len(rest) == 0 {
				fail("not enough arguments for format string")
			}
			x, rest = rest[0], rest[1:]
		}
		return convert(p[2], p[3], p[4], p[5], x)
	})
	if _, mapping := v.(Object); len(rest) > 0 && (isTuple || !mapping) {
		fail("not all arguments converted during string formatting")
	}
	return out
}

func convert(flags, width, precision, c string, v any) string {
	spec := "%" + flags + limited(width)
	if precision != "" {
		spec += "." + limited(precision)
	}
	switch c {
	case "s":
		return fmt.Sprintf(spec+"s", text(v))
	case "r":
		var out strings.Builder
		repr(&out, v, 0)
		return fmt.Sprintf(spec+"s", out.String())
	case "d", "i", "u":
		if f, ok := v.(float64); ok {
			v = toInt(f, args{})
		}
		c = "d"
		fallthrough
	case "x", "X", "o":
		if x, ok := asBig(v); ok {
			return fmt.Sprintf(spec+c, x)
		}
	case "f", "F", "e", "E", "g", "G":
		if x, ok := asFloat(v); ok {
			if precision == "" {
				spec += ".6"
			}
			return fmt.Sprintf(spec+c, x)
		}
	}
	fail("unsupported format %s%s for %s", spec, c, kindOf(v))
	return ""
}

// limited keeps widths to four digits.
func limited(n string) string {
	if len(n) > 4 {
		fail("a width of %s", n)
	}
	return n
}

var field = regexp.MustCompile(`\{\{|\}\}|\{([^{}:!]*)(?:!([rs]))?(?::([^{}]*))?\}|[{}]`)

// braces is Python's s.format(...): fields by position and name, with the format
// specifications of numbers and widths.
func braces(s string, a args) string {
	auto, manual := 0, false
	return field.ReplaceAllStringFunc(s, func(m string) string {
		switch m {
		case "{{":
			return "{"
		case "}}":
			return "}"
		case "{", "}":
			fail("single '%s' encountered in format string", m)
		}
		p := field.FindStringSubmatch(m)
		name := p[1]
		if name == "" {
			name = strconv.Itoa(auto)
			auto++
		} else if name[0] >= '0' && name[0] <= '9' {
			manual = true
		}
		if auto > 0 && manual {
			fail("cannot switch between manual and automatic field numbering")
		}
		head, path, _ := strings.Cut(name, ".")
		var v any
		if i, err := strconv.Atoi(head); err == nil {
			if i < 0 || i >= len(a.pos) {
				fail("replacement index %d out of range", i)
			}
			v = a.pos[i]
		} else {
			var ok bool
			if v, ok = a.named.Get(head); !ok {
				fail("KeyError: '%s'", head)
			}
		}
		if path != "" {
			v = along(v, path)
		}
		if p[2] == "r" {
			var out strings.Builder
			repr(&out, v, 0)
			v = out.String()
		}
		return specified(p[3], v)
	})
}

var specRE = regexp.MustCompile(`^([<>^]?)(0?)(\d*)(,?)(?:\.(\d+))?([sdfegxX%]?)$`)

func specified(spec string, v any) string {
	if spec == "" {
		return text(v)
	}
	m := specRE.FindStringSubmatch(spec)
	if m == nil || m[4] == "," || m[6] == "%" {
		fail("the format specification %q is not supported", spec)
	}
	c := m[6]
	if _, ok := asFloat(v); ok && c == "" {
		c = "s"
		if m[5] != "" {
			c = "g"
		}
	} else if c == "" {
		c = "s"
	}
	s := convert("", "", m[5], c, v)
	width, _ := strconv.Atoi(limited(m[3]))
	w := args{pos: []any{width}}
	_, isNumber := asFloat(v)
	switch {
	case m[2] == "0" && isNumber:
		return zfill(s, width)
	case m[1] == "^":
		return pad(s, w, 1, 1)
	case m[1] == ">" || m[1] == "" && isNumber:
		return pad(s, w, 1, 0)
	}
	return pad(s, w, 0, 1)
}
