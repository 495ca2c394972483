package decompose

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/r2-reasoner/r2/router"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

// script answers with its texts in turn, and keeps what it was asked.
type script struct {
	texts  []string
	finish router.Finish
	asked  []router.Request
}

func (s *script) Complete(_ context.Context, r router.Request) (router.Completion, error) {
	s.asked = append(s.asked, r)
	return router.Completion{Text: s.texts[len(s.asked)-1], In: 50, Out: 9, Finish: s.finish}, nil
}

func model(s *script, p *router.Prompt) *Model {
	return &Model{Model: router.Model{Card: router.Card{Name: "base"}, Completer: s}, Prompt: p}
}

const question = "A <b>farmer</b> has 12 hens & sells 5. How many are left?"

func TestDecompose(t *testing.T) {
	s := &script{texts: []string{`["Count the hens.", "Subtract those sold."]` + "\n"}}
	plan, err := model(s, nil).Decompose(t.Context(), nil, question)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(router.Plan{"Count the hens.", "Subtract those sold."}, plan); diff != "" {
		t.Error(diff)
	}
	if r := s.asked[0]; *r.Temperature != 0 || r.Limit != defaultLimit {
		t.Errorf("asked at temperature %v for %d tokens", *r.Temperature, r.Limit)
	}
}

// An answer that is no plan is shown to the model with the error, once.
func TestRepair(t *testing.T) {
	s := &script{texts: []string{"Sure! Here are the steps.", `["Count the hens."]`}}
	l := router.NewLedger(router.DefaultLimits)
	plan, err := model(s, nil).Decompose(t.Context(), l, question)
	if err != nil || len(plan) != 1 {
		t.Fatalf("%q, %v", plan, err)
	}
	if n := len(l.Calls()); n != 2 {
		t.Errorf("%d calls in the ledger, want 2", n)
	}
	b, _ := json.MarshalIndent(s.asked[1].Messages, "", "  ")
	path := filepath.Join("testdata", "repair.json")
	if *update {
		if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(b)+"\n"); diff != "" {
		t.Errorf("prompt (-want +got; -update rewrites it):\n%s", diff)
	}
}

func TestGivesUp(t *testing.T) {
	s := &script{texts: []string{"no", `{"subtasks": []}`}, finish: router.FinishLength}
	_, err := model(s, nil).Decompose(t.Context(), nil, question)
	var pe *router.PlanError
	if !errors.As(err, &pe) || pe.Text != `{"subtasks": []}` || len(s.asked) != 2 {
		t.Fatalf("after %d calls: %v", len(s.asked), err)
	}
	if !strings.Contains(err.Error(), "cut off at 9 tokens") {
		t.Errorf("the error does not say that the answer was cut off: %v", err)
	}
}

func TestCompactPrompt(t *testing.T) {
	s := &script{texts: []string{"walk"}}
	_, err := model(s, Compact).Decompose(t.Context(), nil, "walk twice after run")
	var pe *router.PlanError
	if !errors.As(err, &pe) || len(s.asked) != 1 {
		t.Errorf("%d calls, %v; want one: it has no repair part", len(s.asked), err)
	}
	if diff := cmp.Diff([]router.Message{{Role: "user", Content: "walk twice after run"}}, s.asked[0].Messages); diff != "" {
		t.Error(diff)
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ text, want, err string }{
		{`["a"]`, "a", ""},
		{" \n[\"a\", \" b \"]\n", "a|b", ""},
		{`["a \"quoted\" <b> \u00e9"]`, `a "quoted" <b> é`, ""},
		{``, "", "empty"},
		{`null`, "", "no subtasks"},
		{`[]`, "", "no subtasks"},
		{`["a", ""]`, "", "subtask 2 is empty"},
		{`["a", "  "]`, "", "subtask 2 is empty"},
		{`["a", null]`, "", "item 2 of the JSON array is not a string"},
		{`["a", 3]`, "", "item 2"},
		{`["a", ["b"]]`, "", "item 2"},
		{`["a", "b"`, "", "ends too early"},
		{`["a",]`, "", "not a JSON array"},
		{`{"subtasks": ["a"]}`, "", "not a JSON array"},
		{"```json\n[\"a\"]\n```", "", "not a JSON array"},
		{`["a"] and more`, "", "more text after"},
		{`["a"]["b"]`, "", "more text after"},
		{`["1","2","3","4","5","6","7","8","9"]`, "", "9 subtasks, and at most 8"},
		{"[\"\xff\"]", "", "UTF-8"},
	} {
		plan, err := Parse(c.text, 8)
		if c.err == "" {
			if got := strings.Join(plan, "|"); err != nil || got != c.want {
				t.Errorf("%q: %q, %v; want %q", c.text, got, err, c.want)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: error %v, want one with %q", c.text, err, c.err)
		}
	}
}

func TestFormatIsReadBack(t *testing.T) {
	word := rapid.StringMatching(`[^\s\x00]([^\x00]{0,8}[^\s\x00])?`).Filter(func(s string) bool {
		return s == strings.TrimSpace(s)
	})
	rapid.Check(t, func(t *rapid.T) {
		p := router.Plan(rapid.SliceOfN(word, 1, 8).Draw(t, "plan"))
		got, err := Parse(Format(p), 8)
		if err != nil || !slices.Equal(got, p) {
			t.Fatalf("%q is written %s and read %q, %v", p, Format(p), got, err)
		}
	})
}

// The parser accepts what encoding/json reads as an array of strings that say something, and nothing else.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`["a"]`, `[]`, `["a",1]`, `{"a":["b"]}`, "[\"a\"]x", `[["a"]]`, `["\ud800"]`, ` ["a" , "b"] `} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		plan, err := Parse(text, 8)
		var want []*string
		ok := utf8.ValidString(text) && json.Unmarshal([]byte(text), &want) == nil && len(want) > 0 && len(want) <= 8
		for _, s := range want {
			ok = ok && s != nil && strings.TrimSpace(*s) != ""
		}
		if ok != (err == nil) {
			t.Fatalf("%q: %v, but read as an array of strings: %v", text, err, ok)
		}
		for i := range plan {
			if plan[i] != strings.TrimSpace(*want[i]) {
				t.Fatalf("%q: subtask %d is %q, want %q", text, i, plan[i], *want[i])
			}
		}
	})
}
