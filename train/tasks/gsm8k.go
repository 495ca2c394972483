package tasks

import (
	"fmt"
	"io"
	"math/big"
	"regexp"
	"strings"
)

// ParseGSM8K reads the lines {question, answer} of GSM8K (Cobbe et al. 2021), whose answers end with
// "#### number". A task's Answer is that number.
func ParseGSM8K(r io.Reader, name string) ([]Task, error) {
	return lines(r, name, func(b []byte) (t Task, err error) {
		var row struct{ Question, Answer string }
		if err := fields(b, &row, &row.Question, &row.Answer); err != nil {
			return t, err
		}
		_, after, ok := strings.Cut(row.Answer, "####")
		if _, err := number(after); !ok || err != nil {
			return t, fmt.Errorf("the answer does not end with #### and a number: %.80q", row.Answer)
		}
		return Task{Question: row.Question, Answer: strings.TrimSpace(after)}, nil
	})
}

// aNumber is a number as people write it: 1,234.5 or 3/4, with or without a sign.
var aNumber = regexp.MustCompile(`[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?`)

// longestNumber keeps a hostile answer from being worked on for long.
const longestNumber = 64

// CheckGSM8K compares, exactly, the number after the last "####" of the answer, or the last number in
// it when it has no such mark, with the known one.
func CheckGSM8K(answer, known string) bool {
	want, err := number(afterMark(known))
	if err != nil {
		return false
	}
	text := afterMark(answer)
	all := aNumber.FindAllString(text, -1)
	if len(all) == 0 {
		return false
	}
	at := len(all) - 1
	if text != answer {
		at = 0 // what follows the mark is the answer; what follows that is not
	}
	got, err := number(all[at])
	return err == nil && got.Cmp(want) == 0
}

func afterMark(s string) string {
	if i := strings.LastIndex(s, "####"); i >= 0 {
		return s[i+len("####"):]
	}
	return s
}

// number reads one number, as aNumber has it, a dollar sign before it or a percent sign after it
// allowed.
func number(s string) (*big.Rat, error) {
	s = strings.TrimSpace(s)
	s = strings.TrimSuffix(strings.TrimPrefix(s, "$"), "%")
	if m := aNumber.FindString(s); m != s || len(s) > longestNumber {
		return nil, fmt.Errorf("%.40q is not a number", s)
	}
	x, ok := new(big.Rat).SetString(strings.TrimPrefix(strings.ReplaceAll(s, ",", ""), "+"))
	if !ok {
		return nil, fmt.Errorf("%.40q is not a number", s)
	}
	return x, nil
}
