package jinja

import (
	"math"
	"math/big"
	"slices"
	"strconv"
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

// listed is list(v): never nil, so that it stays a list.
func listed(v any) []any {
	if items := iterate(v); items != nil {
		return items
	}
	return []any{}
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

func absolute(v any) any {
	if x, ok := whole(v); ok {
		return shrink(new(big.Int).Abs(x))
	}
	x, ok := real(v)
	if !ok {
		fail("bad operand type for abs(): '%s'", kindOf(v))
	}
	return math.Abs(x)
}

func batch(v any, a args) generator {
	n := intArg(a, 0, "linecount", 0)
	if n < 1 {
		fail("batch needs a positive count")
	}
	fillWith := a.at(1, "fill_with", nil)
	out := generator{}
	for part := range slices.Chunk(iterate(v), n) {
		part = slices.Clone(part)
		for fillWith != nil && len(part) < n {
			part = append(part, fillWith)
		}
		out = append(out, part)
	}
	return out
}

var htmlEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;")

func escape(s string) string { return htmlEscapes.Replace(s) }

func end(v any, first bool) any {
	if _, lazy := v.(generator); lazy && !first {
		fail("'generator' object is not reversible")
	}
	items := iterate(v)
	switch {
	case len(items) == 0:
		return undefined{"No first or last item, sequence was empty."}
	case first:
		return items[0]
	}
	return items[len(items)-1]
}

func items(v any) any {
	switch v := v.(type) {
	case undefined:
		return generator{}
	case Object:
		return generator(pairs(v))
	}
	fail("Can only get item pairs from a mapping.")
	return nil
}

func joinFilter(_ *frame, v any, a args) any {
	list := iterate(v)
	if path := a.at(1, "attribute", nil); path != nil {
		list = follow(list, path)
	}
	return join(text(a.at(0, "d", "")), list, false)
}

// along is v.a.b.c for a path "a.b.c" or an index.
func along(v, path any) any {
	s, ok := path.(string)
	if !ok {
		return subscript(v, path)
	}
	for part := range strings.SplitSeq(s, ".") {
		if i, err := strconv.Atoi(part); err == nil {
			v = subscript(v, i)
		} else {
			v = subscript(v, part)
		}
	}
	return v
}

func follow(list []any, path any) []any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = along(v, path)
	}
	return out
}

func mapFilter(f *frame, v any, a args) any {
	if !truth(v) { // as in Jinja2: None goes too
		return generator{}
	}
	list := iterate(v)
	out := make(generator, len(list))
	if path, ok := a.named.Get("attribute"); ok {
		def, given := a.named.Get("default")
		for i, x := range list {
			out[i] = along(x, path)
			if _, gone := out[i].(undefined); gone && given {
				out[i] = def
			}
		}
		return out
	}
	name := needStr(a, 0, "filter")
	for i, x := range list {
		out[i] = applyFilter(f, name, x, args{pos: a.pos[1:], named: a.named})
	}
	return out
}

// choose keeps the items (or, with attr, those with an attribute) a test holds for.
func choose(f *frame, v any, a args, attr, keep bool) any {
	at := 0
	if attr {
		at = 1
		if len(a.pos) == 0 {
			fail("missing parameter for attribute name")
		}
	}
	out := generator{}
	if !truth(v) { // as in Jinja2: None goes too
		return out
	}
	for _, item := range iterate(v) {
		x := item
		if attr {
			x = along(item, a.pos[0])
		}
		ok := false
		if len(a.pos) > at {
			ok = applyTest(f, text(a.pos[at]), x, args{pos: a.pos[at+1:], named: a.named})
		} else {
			ok = truth(x)
		}
		if ok == keep {
			out = append(out, item)
		}
	}
	return out
}

// folded is the key values are compared by: strings in lower case unless told otherwise.
func folded(v any, a args, at int) any {
	if s, ok := v.(string); ok && !truth(a.at(at, "case_sensitive", false)) {
		return strings.ToLower(s)
	}
	return v
}

func sorted(r *run, v any, a args) any {
	list := slices.Clone(listed(v))
	key := func(x any) any {
		if path := a.at(2, "attribute", nil); path != nil {
			x = along(x, path)
		}
		return folded(x, a, 1)
	}
	sign := 1
	if truth(a.at(0, "reverse", false)) {
		sign = -1
	}
	slices.SortStableFunc(list, func(x, y any) int { return sign * r.order("<", key(x), key(y)) })
	return list
}

func dictSort(r *run, v any, a args) any {
	o, ok := v.(Object)
	if !ok {
		fail("dictsort needs a mapping")
	}
	part := 0
	if by, _ := a.at(1, "by", "key").(string); by == "value" {
		part = 1
	}
	sign := 1
	if truth(a.at(2, "reverse", false)) {
		sign = -1
	}
	list := []any(pairs(o))
	slices.SortStableFunc(list, func(x, y any) int {
		return sign * r.order("<", folded(x.(Tuple)[part], a, 0), folded(y.(Tuple)[part], a, 0))
	})
	return list
}

func extreme(r *run, v any, a args, sign int) any {
	list := iterate(v)
	if len(list) == 0 {
		return undefined{"No aggregated item, sequence was empty."}
	}
	key := func(x any) any {
		if path := a.at(1, "attribute", nil); path != nil {
			x = along(x, path)
		}
		return folded(x, a, 0)
	}
	best := list[0]
	for _, x := range list[1:] {
		if sign*r.order("<", key(x), key(best)) > 0 {
			best = x
		}
	}
	return best
}

func unique(r *run, v any, a args) any {
	out := generator{}
	var seen []any
	for _, x := range iterate(v) {
		key := x
		if path := a.at(1, "attribute", nil); path != nil {
			key = along(x, path)
		}
		key = folded(key, a, 0)
		if !r.contains(seen, key) {
			seen, out = append(seen, key), append(out, x)
		}
	}
	return out
}

// groupBy gives (value, items) for each value of an attribute, in order of the values.
func groupBy(r *run, v any, a args) any {
	path := a.at(0, "attribute", nil)
	by := args{named: Object{{"attribute", path}, {"case_sensitive", a.at(2, "case_sensitive", false)}}}
	out := []any{}
	for _, x := range sorted(r, v, by).([]any) {
		key := along(x, path)
		if n := len(out); n > 0 && r.equal(folded(out[n-1].(Tuple)[0], by, 9), folded(key, by, 9)) {
			group := out[n-1].(Tuple)
			group[1] = append(group[1].([]any), x)
			continue
		}
		out = append(out, Tuple{key, []any{x}})
	}
	return out
}

func reverse(v any) any {
	if s, ok := v.(string); ok {
		runes := []rune(s)
		slices.Reverse(runes)
		return string(runes)
	}
	list := slices.Clone(iterate(v))
	slices.Reverse(list)
	return generator(list)
}

func sum(r *run, v any, a args) any {
	total := a.at(1, "start", 0)
	list := iterate(v)
	if path := a.at(0, "attribute", nil); path != nil {
		list = follow(list, path)
	}
	for _, x := range list {
		total = arithmetic(r, "+", total, x)
	}
	return total
}

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
		n, _ := small(w)
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

func toFloat(v, otherwise any) any {
	if x, ok := real(v); ok {
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
	if x, ok := whole(v); ok {
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
	x, ok := real(v)
	if !ok {
		fail("type %s doesn't define __round__ method", kindOf(v))
	}
	digits := intArg(a, 0, "precision", 0)
	scale := math.Pow(10, float64(digits))
	switch method, _ := a.at(1, "method", "common").(string); method {
	case "common":
		if _, isInt := whole(v); isInt && digits >= 0 {
			return v
		}
		if digits < 0 {
			r := math.RoundToEven(x*scale) / scale
			if _, isInt := whole(v); isInt {
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
		n, _ := small(in)
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
