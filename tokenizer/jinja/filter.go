package jinja

import (
	"slices"
	"strings"
	"unicode"
)

func applyFilter(f *frame, name string, v any, a args) any {
	k, ok := filters[name]
	if !ok {
		fail("no filter named '%s'", name)
	}
	f.run.step(1 + size(v)/16)
	out := k(f, v, a)
	f.run.step(size(out) / 16)
	return out
}

var filters map[string]func(f *frame, v any, a args) any

func init() {
	filters = map[string]func(f *frame, v any, a args) any{
		"abs":        func(_ *frame, v any, _ args) any { return absolute(v) },
		"attr":       func(_ *frame, v any, a args) any { return attrOnly(v, needStr(a, 0, "name")) },
		"batch":      func(_ *frame, v any, a args) any { return batch(v, a) },
		"capitalize": func(_ *frame, v any, _ args) any { return capitalize(text(v)) },
		"center": func(_ *frame, v any, a args) any {
			return pad(text(v), args{pos: []any{a.at(0, "width", 80)}}, 1, 1)
		},
		"count":      func(_ *frame, v any, _ args) any { return length(v) },
		"d":          otherwise,
		"default":    otherwise,
		"dictsort":   func(f *frame, v any, a args) any { return dictSort(f.run, v, a) },
		"e":          func(_ *frame, v any, _ args) any { return escape(text(v)) },
		"escape":     func(_ *frame, v any, _ args) any { return escape(text(v)) },
		"first":      func(_ *frame, v any, _ args) any { return end(v, true) },
		"float":      func(_ *frame, v any, a args) any { return toFloat(v, a.at(0, "default", 0.0)) },
		"format":     func(_ *frame, v any, a args) any { return formatted(text(v), a) },
		"groupby":    func(f *frame, v any, a args) any { return groupBy(f.run, v, a) },
		"indent":     func(_ *frame, v any, a args) any { return indent(text(v), a) },
		"int":        func(_ *frame, v any, a args) any { return toInt(v, a) },
		"items":      func(_ *frame, v any, _ args) any { return items(v) },
		"join":       joinFilter,
		"last":       func(_ *frame, v any, _ args) any { return end(v, false) },
		"length":     func(_ *frame, v any, _ args) any { return length(v) },
		"list":       func(_ *frame, v any, _ args) any { return slices.Clone(listed(v)) },
		"lower":      func(_ *frame, v any, _ args) any { return lower(text(v)) },
		"map":        mapFilter,
		"max":        func(f *frame, v any, a args) any { return extreme(f.run, v, a, 1) },
		"min":        func(f *frame, v any, a args) any { return extreme(f.run, v, a, -1) },
		"reject":     func(f *frame, v any, a args) any { return choose(f, v, a, false, false) },
		"rejectattr": func(f *frame, v any, a args) any { return choose(f, v, a, true, false) },
		"replace": func(_ *frame, v any, a args) any {
			return replace(text(v), text(a.at(0, "old", nil)), text(a.at(1, "new", nil)), intArg(a, 2, "count", -1))
		},
		"reverse":    func(_ *frame, v any, _ args) any { return reverse(v) },
		"round":      func(_ *frame, v any, a args) any { return round(v, a) },
		"safe":       func(_ *frame, v any, _ args) any { return text(v) },
		"select":     func(f *frame, v any, a args) any { return choose(f, v, a, false, true) },
		"selectattr": func(f *frame, v any, a args) any { return choose(f, v, a, true, true) },
		"sort":       func(f *frame, v any, a args) any { return sorted(f.run, v, a) },
		"string":     func(_ *frame, v any, _ args) any { return text(v) },
		"sum":        func(f *frame, v any, a args) any { return sum(f.run, v, a) },
		"title":      func(_ *frame, v any, _ args) any { return titleFilter(text(v)) },
		"tojson":     func(_ *frame, v any, a args) any { return toJSON(v, a) },
		"trim":       func(_ *frame, v any, a args) any { return strip(text(v), a, true, true) },
		"unique":     func(f *frame, v any, a args) any { return unique(f.run, v, a) },
		"upper":      func(_ *frame, v any, _ args) any { return upper(text(v)) },
		"wordcount":  func(_ *frame, v any, _ args) any { return len(splitSpace(text(v), -1)) },
	}
}

func otherwise(_ *frame, v any, a args) any {
	_, gone := v.(undefined)
	if gone || truth(a.at(1, "boolean", false)) && !truth(v) {
		return a.at(0, "default_value", "")
	}
	return v
}

// attrOnly is the attr filter, which does not look for items.
func attrOnly(v any, name string) any {
	if o, ok := v.(Object); ok {
		if m := dictMethod(o, name); m != nil {
			return m
		}
		return missing("dict", name)
	}
	return attribute(v, name)
}

var htmlEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;")

func escape(s string) string { return htmlEscapes.Replace(s) }

// titleFilter is the title filter, which knows words by spaces, dashes and brackets.
func titleFilter(s string) string {
	inside := false
	return strings.Map(func(r rune) rune {
		was := inside
		inside = !isSpace(r) && !strings.ContainsRune("-({[<", r)
		if was && inside {
			return unicode.ToLower(r)
		}
		return unicode.ToUpper(r)
	}, s)
}

func indent(s string, a args) string {
	by := ""
	switch w := a.at(0, "width", 4).(type) {
	case string:
		by = w
	default:
		n, _ := asInt(w)
		by = fill(" ", n)
	}
	first, blank := truth(a.at(1, "first", false)), truth(a.at(2, "blank", false))
	lines := strings.Split(s, "\n")
	if len(lines) > maxOutput/max(len(by), 1) {
		fail("a string of more than %d bytes", maxOutput)
	}
	for i, line := range lines {
		if i == 0 && first || i > 0 && (blank || line != "") {
			lines[i] = by + line
		}
	}
	return strings.Join(lines, "\n")
}

// toJSON is tojson as transformers defines it.
func toJSON(v any, a args) any {
	style := dumpStyle{item: ", ", key: ": "}
	style.ascii = truth(a.at(0, "ensure_ascii", false))
	style.sort = truth(a.at(3, "sort_keys", false))
	switch in := a.at(1, "indent", nil).(type) {
	case nil:
	case string:
		style.lines, style.indent = true, in
	default:
		n, _ := asInt(in)
		style.lines, style.indent = true, fill(" ", n)
	}
	if style.lines {
		style.item = ","
	}
	if seps := a.at(2, "separators", nil); seps != nil {
		pair := iterate(seps)
		if len(pair) != 2 {
			fail("separators are two strings")
		}
		style.item, style.key = text(pair[0]), text(pair[1])
	}
	s, err := dump(v, style)
	if err != nil {
		fail("%v", err)
	}
	return s
}
