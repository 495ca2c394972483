package tasks

import (
	"fmt"
	"io"
	"math/big"
	"regexp"
	"strings"
)

// ParseMATH reads the lines {problem, solution} of MATH (Hendrycks et al. 2021). A task's Answer is
// the whole solution, whose last box holds the answer.
func ParseMATH(r io.Reader, name string) ([]Task, error) {
	return lines(r, name, func(b []byte) (t Task, err error) {
		var row struct{ Problem, Solution string }
		if err := fields(b, &row, &row.Problem, &row.Solution); err != nil {
			return t, err
		}
		if _, ok := Boxed(row.Solution); !ok {
			return t, fmt.Errorf("the solution has no \\boxed answer: %.80q", row.Solution)
		}
		return Task{Question: row.Problem, Answer: row.Solution}, nil
	})
}

// Boxed is what the last \boxed{…} or \fbox{…} of a text holds, its braces balanced; "\boxed x" holds
// what follows up to a dollar sign.
func Boxed(text string) (string, bool) {
	at, word := -1, ""
	for _, w := range []string{`\boxed`, `\fbox`} {
		if i := strings.LastIndex(text, w); i > at {
			at, word = i, w
		}
	}
	if at < 0 {
		return "", false
	}
	rest := strings.TrimLeft(text[at+len(word):], " ")
	if !strings.HasPrefix(rest, "{") {
		rest, _, _ = strings.Cut(rest, "$")
		return strings.TrimSpace(rest), strings.TrimSpace(rest) != ""
	}
	depth := 0
	for i := 0; i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			i++ // the next is no brace of ours
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return strings.TrimSpace(rest[1:i]), true
			}
		}
	}
	return "", false
}

// CheckMATH reports whether the boxed answer equals the known one: as normalised LaTeX, or as the
// same number. known may be a whole solution or the answer alone; an answer must be boxed.
func CheckMATH(answer, known string) bool {
	got, ok := Boxed(answer)
	if !ok {
		return false
	}
	want, boxed := Boxed(known)
	if !boxed {
		want = known
	}
	g, w := normalMATH(got), normalMATH(want)
	if w == "" && !boxed {
		return false // two problems' solutions do end with an empty box
	}
	if g == w {
		return true
	}
	a, b := value(g), value(w)
	return a != nil && b != nil && a.Cmp(b) == 0
}

// spoken is LaTeX that does not change an answer's meaning, and what stands for it.
var spoken = strings.NewReplacer(
	`\\`, `\\`, "{,}", ",", `\left`, "", `\right`, "", `\dfrac`, `\frac`, `\tfrac`, `\frac`, `\cfrac`, `\frac`,
	`\!`, "", `\,`, "", `\;`, "", `\:`, "", `\ `, "", `~`, "", `\$`, "", `$`, "", `\%`, "", "%", "",
	`^{\circ}`, "", `^\circ`, "", `\degree`, "", `\cdot`, `\times`, `\leq`, `\le`, `\geq`, `\ge`, `\neq`, `\ne`, `\lbrace`, `\{`, `\rbrace`, `\}`,
	`\mathrm`, `\text`, `\textbf`, `\text`, `\mbox`, `\text`, `\textrm`, `\text`, `\displaystyle`, "", `\quad`, "",
	"\n", "", "\t", "",
)

var (
	unit       = regexp.MustCompile(`(?:\\text\{[^{}]*\})+(?:\^(?:\d|\{\d\}))?$`) // words behind a value
	words      = regexp.MustCompile(`\\text\{([^{}]*)\}`)
	bareFrac   = regexp.MustCompile(`\\frac(\d)(\d)`)
	halfFrac   = regexp.MustCompile(`\\frac(\d)\{`)
	otherFrac  = regexp.MustCompile(`\\frac(\{[^{}]*\})(\w)`)
	bareRoot   = regexp.MustCompile(`\\sqrt(\w)`)
	slash      = regexp.MustCompile(`^(-?)(\d+)/(\d+)$`)
	thousands  = regexp.MustCompile(`^-?\d{1,3}(?:,\d{3})+(?:\.\d+)?$`)
	assignment = regexp.MustCompile(`^[a-zA-Z](?:\([a-zA-Z]\))?=`)
	plainPower = regexp.MustCompile(`([\^_])\{(\w)\}`)
	fraction   = regexp.MustCompile(`^(-?)(\d*)\\frac\{(-?\d+)\}\{(-?\d+)\}$`)
)

// normalMATH is the form in which two answers are compared.
func normalMATH(s string) string {
	s = spoken.Replace(s)
	s = strings.TrimSpace(strings.TrimRight(strings.TrimSpace(s), ".,;"))
	if cut := unit.ReplaceAllString(s, ""); cut != "" {
		s = cut
	}
	s = words.ReplaceAllString(s, "$1")
	s = strings.ReplaceAll(s, " ", "")
	s = bareFrac.ReplaceAllString(s, `\frac{$1}{$2}`)
	s = halfFrac.ReplaceAllString(s, `\frac{$1}{`)
	s = otherFrac.ReplaceAllString(s, `\frac$1{$2}`)
	s = bareRoot.ReplaceAllString(s, `\sqrt{$1}`)
	s = plainPower.ReplaceAllString(s, "$1$2")
	s = slash.ReplaceAllString(s, `$1\frac{$2}{$3}`)
	if thousands.MatchString(s) {
		s = strings.ReplaceAll(s, ",", "")
	}
	s = assignment.ReplaceAllString(s, "")
	if strings.HasPrefix(s, ".") {
		s = "0" + s
	}
	return s
}

// value is the number that a normal form is, or nil.
func value(s string) *big.Rat {
	if len(s) > longestNumber {
		return nil
	}
	if m := fraction.FindStringSubmatch(s); m != nil {
		over, _ := new(big.Int).SetString(m[4], 10)
		if over.Sign() == 0 {
			return nil
		}
		top, _ := new(big.Int).SetString(m[3], 10)
		x := new(big.Rat).SetFrac(top, over)
		if m[2] != "" { // 2\frac{1}{2} is a mixed number
			whole, _ := new(big.Int).SetString(m[2], 10)
			x.Add(x, new(big.Rat).SetInt(whole))
		}
		if m[1] == "-" {
			x.Neg(x)
		}
		return x
	}
	x, err := number(s)
	if err != nil {
		return nil
	}
	return x
}
