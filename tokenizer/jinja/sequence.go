package jinja

import (
	"slices"
	"strconv"
	"strings"
)

// listed is list(v): never nil, so that it stays a list.
func listed(v any) []any {
	if items := iterate(v); items != nil {
		return items
	}
	return []any{}
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
