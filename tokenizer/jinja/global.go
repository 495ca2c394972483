package jinja

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// globals are the functions a template finds without being given them.
var globals map[string]any

func init() {
	globals = map[string]any{
		"range":           function(rangeOf),
		"dict":            function(func(_ *frame, a args) any { return dictOf(a) }),
		"namespace":       function(func(_ *frame, a args) any { return &namespace{dictOf(a)} }),
		"joiner":          function(joiner),
		"cycler":          function(newCycler),
		"raise_exception": function(func(_ *frame, a args) any { fail("%s", text(a.at(0, "message", ""))); return nil }),
		"strftime_now":    function(func(f *frame, a args) any { return strftime(f.run.now, needStr(a, 0, "format")) }),
	}
}

func rangeOf(f *frame, a args) any {
	if n := len(a.pos); n < 1 || n > 3 {
		fail("range expected 1 to 3 arguments, got %d", n)
	}
	start, stop, step := 0, intArg(a, 0, "stop", 0), 1
	if len(a.pos) > 1 {
		start, stop, step = stop, intArg(a, 1, "stop", 0), intArg(a, 2, "step", 1)
	}
	if step == 0 {
		fail("range() arg 3 must not be zero")
	}
	n := 0.0
	if float64(stop-start)*float64(step) > 0 {
		n = float64(stop-start) / float64(step)
	}
	if n > maxRange {
		fail("Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", maxRange)
	}
	count := int(n)
	if float64(count) < n {
		count++
	}
	f.run.step(count)
	return span{start, step, count}
}

func dictOf(a args) Object {
	o := Object{}
	if len(a.pos) > 0 {
		switch from := a.pos[0].(type) {
		case Object:
			o = append(o, from...)
		default:
			for _, pair := range iterate(from) {
				kv := iterate(pair)
				if len(kv) != 2 {
					fail("dict needs pairs")
				}
				o.Set(text(kv[0]), kv[1])
			}
		}
	}
	for _, m := range a.named {
		o.Set(m.Key, m.Value)
	}
	return o
}

func joiner(_ *frame, a args) any {
	sep, used := text(a.at(0, "sep", ", ")), false
	return function(func(*frame, args) any {
		if !used {
			used = true
			return ""
		}
		return sep
	})
}

// A cycler goes round its items, one at each call of next.
type cycler struct {
	items []any
	at    int
}

func newCycler(_ *frame, a args) any {
	if len(a.pos) == 0 {
		fail("at least one item has to be provided")
	}
	return &cycler{items: a.pos}
}

func (c *cycler) attr(name string) any {
	switch name {
	case "current":
		return c.items[c.at]
	case "next":
		return function(func(*frame, args) any {
			v := c.items[c.at]
			c.at = (c.at + 1) % len(c.items)
			return v
		})
	case "reset":
		return function(func(*frame, args) any { c.at = 0; return nil })
	}
	return missing("Cycler", name)
}

var dateLayouts = map[byte]string{
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'B': "January", 'd': "02", 'H': "15", 'I': "03", 'j': "002",
	'm': "01", 'M': "04", 'p': "PM", 'S': "05", 'y': "06", 'Y': "2006", 'Z': "", 'z': "",
	'F': "2006-01-02", 'T': "15:04:05", 'D': "01/02/06", 'R': "15:04", 'e': "_2",
	'c': "Mon Jan _2 15:04:05 2006", 'x': "01/02/06", 'X': "15:04:05",
}

// strftime writes a local time as C's strftime does in the C locale.
func strftime(t time.Time, format string) string {
	var out strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			out.WriteByte(format[i])
			continue
		}
		i++
		unpadded := format[i] == '-' && i+1 < len(format)
		if unpadded {
			i++
		}
		c := format[i]
		layout, ok := dateLayouts[c]
		switch {
		case ok:
			s := t.Format(layout)
			if unpadded {
				s = strings.TrimLeft(s, "0 ")
				if s == "" {
					s = "0"
				}
			}
			out.WriteString(s)
		case c == '%':
			out.WriteByte('%')
		case c == 'f':
			fmt.Fprintf(&out, "%06d", t.Nanosecond()/1000)
		case c == 'w':
			out.WriteString(strconv.Itoa(int(t.Weekday())))
		default:
			fail("strftime_now: %%%c is not supported", c)
		}
	}
	return out.String()
}
