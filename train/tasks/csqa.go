package tasks

import (
	"fmt"
	"io"
	"regexp"
	"strings"
)

// ParseCSQA reads the lines {question: {stem, choices: [{label, text}]}, answerKey} of CommonsenseQA
// (Talmor et al. 2019). The choices stand in the question; a task's Answer is the right one's letter.
func ParseCSQA(r io.Reader, name string) ([]Task, error) {
	return lines(r, name, func(b []byte) (t Task, err error) {
		var row struct {
			AnswerKey string
			Question  struct {
				Stem    string
				Choices []struct{ Label, Text string }
			}
		}
		if err := fields(b, &row, &row.Question.Stem, &row.AnswerKey); err != nil {
			return t, err
		}
		var q strings.Builder
		q.WriteString(row.Question.Stem)
		found := false
		for _, c := range row.Question.Choices {
			fmt.Fprintf(&q, "\n(%s) %s", c.Label, c.Text)
			found = found || c.Label == row.AnswerKey
		}
		if !found {
			return t, fmt.Errorf("the key %q is none of the choices", row.AnswerKey)
		}
		return Task{Question: q.String(), Answer: row.AnswerKey}, nil
	})
}

// An answer's letter: one after "answer is", "answer:" or the like, one in brackets, or one that
// stands alone at either end.
var (
	saidLetter    = regexp.MustCompile(`(?i:answer(?:\s+is)?\s*:?)\s*\(?([A-E])\b`)
	bracketLetter = regexp.MustCompile(`\(([A-E])\)`)
	firstLetter   = regexp.MustCompile(`^\s*([A-E])(?:[.):\s]|$)`)
	lastLetter    = regexp.MustCompile(`(?:^|\s)([A-E])[.]?\s*$`)
)

// CheckCSQA reports whether the letter an answer settles on is the known one. The last of several that
// are said, or stand in brackets, counts.
func CheckCSQA(answer, known string) bool {
	for _, re := range []*regexp.Regexp{saidLetter, bracketLetter} {
		if all := re.FindAllStringSubmatch(answer, -1); len(all) > 0 {
			return all[len(all)-1][1] == known
		}
	}
	for _, re := range []*regexp.Regexp{firstLetter, lastLetter} {
		if m := re.FindStringSubmatch(answer); m != nil {
			return m[1] == known
		}
	}
	return false
}
