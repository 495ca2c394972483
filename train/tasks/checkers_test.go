package tasks

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/model/modeltest"
)

// published are the tasks of files of the reference data, with how many there must be.
func published(t *testing.T, name string, count int, files ...string) []Task {
	t.Helper()
	b, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	var all []Task
	for _, f := range files {
		part, err := b.Read(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, part...)
	}
	if len(all) != count {
		t.Errorf("%s: %d tasks, want %d", name, len(all), count)
	}
	return all
}

func TestMATHAgainstItself(t *testing.T) {
	dir := modeltest.Shared(t, "data", "math")
	for split, count := range map[string]int{"test": 5000, "train": 7500} {
		files, err := filepath.Glob(filepath.Join(dir, "*_"+split+".json"))
		if err != nil {
			t.Fatal(err)
		}
		all := published(t, "math", count, files...)
		wrong := 0
		for i, task := range all {
			if !CheckMATH(task.Answer, task.Answer) {
				t.Errorf("%s: the gold solution does not pass: %q", task.ID, task.Answer)
			}
			// Another problem's solution may be right only where both boxes hold the same value.
			other := all[(i+1237)%count].Answer
			if CheckMATH(other, task.Answer) {
				a, _ := Boxed(other)
				b, _ := Boxed(task.Answer)
				if a != b {
					t.Logf("%q passes for %q", a, b)
					wrong++
				}
			}
		}
		if wrong > count/100 {
			t.Errorf("%s: %d solutions of other problems pass by another spelling", split, wrong)
		}
	}
}

func TestCheckMATH(t *testing.T) {
	for _, same := range [][]string{
		{`\frac{1}{2}`, `\dfrac12`, `\tfrac{1}{2}`, `\frac 1 2`, `\frac1{2}`, `1/2`, `0.5`, `.5`, `x = \frac12`, `$\frac{1}{2}$`, `\frac{2}{4}`},
		{`-\frac{3}{4}`, `\frac{-3}{4}`, `-0.75`, `-3/4`},
		{`12,345`, `12345`, `12{,}345`, `\$12,\!345`, `12345.0`, `12345\text{ dollars}`, `12345.`},
		{`90`, `90^\circ`, `90^{\circ}`, `90\%`, `90\text{ degrees}`},
		{`\left(1,2\right)`, `(1,2)`, `(1, 2)`, `( 1,\ 2 )`},
		{`\text{(A)}`, `\mbox{(A)}`, `(A)`},
		{`2\frac{1}{2}`, `\frac{5}{2}`, `2.5`},
		{`\sqrt{3}`, `\sqrt3`}, {`x^{2}+1`, `x^2 + 1`}, {`[0,\infty)`, `\left[0,\infty\right)`},
		{`\begin{pmatrix}1\\2\end{pmatrix}`, `\begin{pmatrix} 1 \\ 2 \end{pmatrix}`},
	} {
		for _, a := range same {
			for _, b := range same {
				if !CheckMATH(`so \boxed{`+a+`}.`, b) {
					t.Errorf("%q is not taken for %q: %q, %q", a, b, normalMATH(a), normalMATH(b))
				}
			}
		}
	}
	for answer, known := range map[string]string{
		`\boxed{1}`: `2`, `\boxed{\frac{1}{2}}`: `\frac{2}{1}`, `\boxed{(1,2)}`: `(2,1)`, `\boxed{1,234}`: `1,235`, `\boxed{(1,234)}`: `1234`,
		`\boxed{}`: ``, `1/2`: `\frac12`, `\boxed{1`: `1`, `\boxed{2\frac13}`: `\frac{2}{3}`, `\boxed{[0,1)}`: `(0,1)`,
		`\boxed{x^2}`: `x_2`, `\boxed{1} then \boxed{3}`: `1`, `\boxed{\frac{1}{0}}`: `\frac{2}{0}`, `\boxed{-5}`: `5`,
	} {
		if CheckMATH(answer, known) {
			t.Errorf("%q is taken for %q", answer, known)
		}
	}
}

func TestGSM8K(t *testing.T) {
	dir := modeltest.Shared(t, "data", "gsm8k")
	all := published(t, "gsm8k", 1319, filepath.Join(dir, "test.jsonl"))
	published(t, "gsm8k", 7473, filepath.Join(dir, "train.jsonl"))
	for _, task := range all {
		for _, said := range []string{"#### " + task.Answer, "It was 3 at first. The answer is " + task.Answer + "."} {
			if !CheckGSM8K(said, task.Answer) {
				t.Errorf("%s: %q does not pass for %q", task.ID, said, task.Answer)
			}
		}
	}
	for _, c := range []struct {
		answer, known string
		want          bool
	}{
		{"#### 1,234", "1234", true}, {"so $18.00 it is", "18", true}, {"#### 72 (of 90)", "72", true}, {"4/8", "0.5", true}, {"-3", "-3", true},
		{"#### 5\nNo: #### 6", "6", true}, {"50%", "50", true}, {".5", "0.5", true}, {"They have 18 eggs.", "18", true},
		{"#### 73", "72", false}, {"", "72", false}, {"none", "72", false}, {"72 or 73", "72", false}, {"####", "0", false},
		{"3", "-3", false}, {"1/0", "1", false}, {"721", "72", false}, {"72", "none", false}, {strings.Repeat("9", 1000), "9", false},
	} {
		if got := CheckGSM8K(c.answer, c.known); got != c.want {
			t.Errorf("%.40q for %q: %v", c.answer, c.known, got)
		}
	}
}

func TestCSQA(t *testing.T) {
	dir := modeltest.Shared(t, "data", "csqa")
	all := published(t, "csqa", 1221, filepath.Join(dir, "dev_rand_split.jsonl"))
	published(t, "csqa", 9741, filepath.Join(dir, "train_rand_split.jsonl"))
	for _, task := range all {
		for _, letter := range []string{"A", "B", "C", "D", "E"} {
			if got := CheckCSQA("The answer is ("+letter+").", task.Answer); got != (letter == task.Answer) {
				t.Errorf("%s: %s for %s: %v", task.ID, letter, task.Answer, got)
			}
		}
		if strings.Count(task.Question, "\n(") != 5 {
			t.Errorf("%s: %q", task.ID, task.Question)
		}
	}
	for answer, want := range map[string]bool{
		"B": true, "B.": true, "(B)": true, " B) bank": true, "Answer: B": true, "answer is B, not A": true, "not (A) but (B)": true, "It must be B": true,
		"A": false, "": false, "b": false, "Bank": false, "ABC": false, "(B) or rather (A)": false, "answer: A (B)": false,
	} {
		if got := CheckCSQA(answer, "B"); got != want {
			t.Errorf("%q: %v", answer, got)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for name, rows := range map[string]string{
		"gsm8k": `{"question":"q","answer":"no mark"}`,
		"math":  `{"problem":"p","solution":"no box"}`,
		"csqa":  `{"answerKey":"F","question":{"stem":"s","choices":[{"label":"A","text":"a"}]}}`,
	} {
		b := benchmarks[name]
		for _, bad := range []string{rows, "{", `{"question":""}`, "[1]"} {
			if _, err := b.Parse(strings.NewReader("\n"+bad), name); err == nil || !strings.Contains(err.Error(), "line 2") {
				t.Errorf("%s: %s: %v", name, bad, err)
			}
		}
		if _, err := b.Load("train"); err == nil || !strings.Contains(err.Error(), "--data") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzCheckers(f *testing.F) {
	for _, s := range []string{`\boxed{\frac12}`, "#### 5", "(A)", `\boxed{{}`, `\boxed\`, `\fbox 3$`, "1/0"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, answer, known string) {
		CheckGSM8K(answer, known)
		CheckCSQA(answer, known)
		CheckMATH(answer, known)
		// What the box holds is right for itself, whatever it is.
		if _, ok := Boxed(answer); ok && !CheckMATH(answer, answer) {
			t.Errorf("%q does not pass for itself", answer)
		}
		if n := len(answer) % 1000; !CheckGSM8K(fmt.Sprintf("%.60q\n#### %d", answer, n), fmt.Sprint(n)) {
			t.Errorf("%d after %q", n, answer)
		}
	})
}
