package grammar

import "unicode"

// How JSON is written where a form allows it: numbers of at most 18 digits before and after the point, and one
// space at most after a colon or a comma, so that a model cannot go on for ever without saying anything.

func digits(min, max int) part {
	var s set
	s.add('0', '9')
	return repeat(bytes(s), min, max)
}

func integer() part {
	var first set
	first.add('1', '9')
	return sequence(optional(text("-")), either(text("0"), sequence(bytes(first), digits(0, 17))))
}

func number() part {
	fraction := sequence(text("."), digits(1, 18))
	exponent := sequence(either(text("e"), text("E")), optional(either(text("+"), text("-"))), digits(1, 2))
	return sequence(integer(), optional(fraction), optional(exponent))
}

func boolean() part { return either(text("true"), text("false")) }

func space() part { return optional(text(" ")) }

// escapedRune writes code points as they stand in a JSON string: quotes, backslashes and control characters
// are escaped, in the shortest way.
func escapedRune(lo, hi rune) []spelling {
	var all []spelling
	short := map[rune]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`}
	const hex = "0123456789abcdef"
	for r := lo; r <= hi && r < 0x20; r++ {
		if s, ok := short[r]; ok {
			all = append(all, spell(s))
		} else {
			all = append(all, spell(`\u00`+string(hex[r>>4])+string(hex[r&15])))
		}
	}
	from := max(lo, 0x20)
	for _, r := range []rune{'"', '\\'} {
		if r < from || r > hi {
			continue
		}
		if from < r {
			all = append(all, runes(from, r-1)...)
		}
		all = append(all, spell(short[r]))
		from = r + 1
	}
	if from <= hi {
		all = append(all, runes(from, hi)...)
	}
	return all
}

// character is any one code point of a JSON string.
func character() part { return spelled(escapedRune(0, unicode.MaxRune)) }

func quoted(content part) part { return sequence(text(`"`), content, text(`"`)) }

// values are the forms of JSON that may hold one another.
type values struct{ any, object *rule }

func newValues() *values {
	v := &values{any: &rule{}, object: &rule{}}
	str := quoted(repeat(character(), 0, -1))
	member := sequence(str, text(":"), space(), v.any.part())
	v.object.body = sequence(text("{"), list(member, 0, -1), text("}"))
	array := sequence(text("["), list(v.any.part(), 0, -1), text("]"))
	v.any.body = either(v.object.part(), array, str, number(), boolean(), text("null"))
	return v
}

// list is from min to max items with commas between them; max -1 is without end.
func list(item part, min, max int) part {
	if max == 0 {
		return empty
	}
	rest := -1
	if max > 0 {
		rest = max - 1
	}
	least := min - 1
	if min == 0 {
		least = 0
	}
	all := sequence(item, repeat(sequence(text(","), space(), item), least, rest))
	if min == 0 {
		return optional(all)
	}
	return all
}

// JSONObject is any JSON object.
func JSONObject() *Grammar {
	g, err := compile(newValues().object.part())
	if err != nil {
		panic(err) // it does not depend on input
	}
	return g
}
