package tasks

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/r2-reasoner/r2/model/modeltest"
)

// embedded returns every task in the repository.
func embedded(t *testing.T) (all []Task) {
	for _, split := range Splits {
		part, err := SCAN(split)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, part...)
	}
	return all
}

func TestSCANSplits(t *testing.T) {
	count := map[string]int{}
	where := map[string]string{}
	longest, shortest := 0, 1000
	for _, split := range Splits {
		all, err := SCAN(split)
		if err != nil {
			t.Fatal(err)
		}
		count[split] = len(all)
		for _, task := range all {
			if other := where[task.Question]; other != "" {
				t.Errorf("%q is in %s and in %s", task.Question, other, split)
			}
			where[task.Question] = split
			if n := len(strings.Fields(task.Answer)); split == "test" {
				shortest = min(shortest, n)
			} else {
				longest = max(longest, n)
			}
		}
	}
	// The sizes and lengths are those of the paper's length split.
	if count["train"]+count["dev"] != 16990 || count["test"] != 3920 || longest != 22 || shortest != 24 {
		t.Errorf("%v tasks, up to %d actions in training, from %d in test", count, longest, shortest)
	}
	if share := float64(count["dev"]) / 16990; share < 0.04 || share > 0.06 {
		t.Errorf("dev has %.3f of the training data, want about 1/20", share)
	}
	if _, err := SCAN("validation"); err == nil || !strings.Contains(err.Error(), "there is train, dev, test") {
		t.Errorf("an unknown split: %v", err)
	}
}

func TestSCANIsTheReferenceData(t *testing.T) {
	var got []Task
	all := embedded(t)
	for _, file := range []string{"train", "test"} {
		f, err := os.Open(modeltest.Shared(t, "data", "scan", "tasks_"+file+"_length.txt"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		part, err := ParseSCAN(f, "scan-length/"+file)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, part...)
	}
	byID := func(a, b Task) int { return strings.Compare(a.ID, b.ID) }
	slices.SortFunc(all, byID)
	slices.SortFunc(got, byID)
	if !slices.Equal(all, got) {
		t.Error("the embedded files differ from the reference data")
	}
}

// checkGrammar compares the interpreter and the decomposition with the data's own answers.
func checkGrammar(t *testing.T, all []Task) {
	phrases := SCANPhrases()
	seen := map[string]bool{}
	for _, task := range all {
		got, err := SCANActions(task.Question)
		if err != nil {
			t.Fatal(err)
		}
		if s := strings.Join(got, " "); s != task.Answer {
			t.Fatalf("%q: %s, want %s", task.Question, s, task.Answer)
		}
		steps, err := SCANSubtasks(task.Question)
		if err != nil {
			t.Fatal(err)
		}
		var joined []string
		for _, s := range steps {
			seen[s] = true
			part, err := SCANActions(s)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(phrases, s) {
				t.Fatalf("%q: subtask %q is no phrase", task.Question, s)
			}
			joined = append(joined, part...)
		}
		if !CheckSCAN(strings.Join(joined, " "), task.Answer) {
			t.Fatalf("%q: the subtasks %q give %q", task.Question, steps, joined)
		}
	}
	if len(phrases) != 34 || len(seen) != 34 {
		t.Errorf("%d phrases listed, %d occur; the grammar has 34", len(phrases), len(seen))
	}
}

func TestSCANGrammarOnEveryTask(t *testing.T) {
	all := embedded(t)
	if len(all) != 20910 { // all commands there are
		t.Errorf("%d commands", len(all))
	}
	checkGrammar(t, all)
}

func TestSCANGrammarOnTheSimpleSplit(t *testing.T) {
	for file, n := range map[string]int{"train": 16728, "test": 4182} {
		f, err := os.Open(modeltest.Shared(t, "data", "scan", "tasks_"+file+"_simple.txt"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		all, err := ParseSCAN(f, file)
		if err != nil || len(all) != n {
			t.Fatalf("%d tasks, %v; want %d", len(all), err, n)
		}
		checkGrammar(t, all)
	}
}

func TestSCANSubtasks(t *testing.T) {
	for command, want := range map[string][]string{
		"jump around left twice after walk opposite right": {"walk opposite right", "jump around left", "jump around left"},
		"turn left thrice and look":                        {"turn left", "turn left", "turn left", "look"},
		"run":                                              {"run"},
	} {
		got, err := SCANSubtasks(command)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%q: %v %s", command, err, d)
		}
	}
}

func TestSCANRefusesWhatIsNoCommand(t *testing.T) {
	for _, command := range []string{"", "and", "jump and", "after walk", "turn", "turn twice", "twice", "jump sideways",
		"jump left around", "jump around", "walk walk", "Jump", "jump and walk and run", "jump twice twice", "jump around left right"} {
		if got, err := SCANActions(command); err == nil {
			t.Errorf("%q gave %q", command, got)
		}
	}
}

func TestParseSCANNamesTheLine(t *testing.T) {
	for _, bad := range []string{"", "IN: jump", "jump OUT: I_JUMP", "IN:  OUT: I_JUMP", "IN: jump OUT: ", strings.Repeat("x", 1<<17)} {
		_, err := ParseSCAN(strings.NewReader("IN: jump OUT: I_JUMP\n"+bad+"\nIN: walk OUT: I_WALK\n"), "x")
		if err == nil || !strings.Contains(err.Error(), "line 2") || len(err.Error()) > 200 {
			t.Errorf("%.20q: error %v", bad, err)
		}
	}
}

func TestCheckSCAN(t *testing.T) {
	for _, c := range []struct {
		answer, known string
		want          bool
	}{
		{"I_JUMP I_WALK", "I_JUMP I_WALK", true},
		{" I_JUMP\n I_WALK\n", "I_JUMP I_WALK", true},
		{"I_WALK I_JUMP", "I_JUMP I_WALK", false},
		{"I_JUMP", "I_JUMP I_WALK", false},
		{"I_JUMP I_WALK I_WALK", "I_JUMP I_WALK", false},
		{"I_JUMPI_WALK", "I_JUMP I_WALK", false},
		{"i_jump", "I_JUMP", false},
		{"", "I_JUMP", false},
		{"", "", false},
	} {
		if got := CheckSCAN(c.answer, c.known); got != c.want {
			t.Errorf("CheckSCAN(%q, %q) = %v", c.answer, c.known, got)
		}
	}
}

func TestOpen(t *testing.T) {
	b, err := Open("scan")
	if err != nil {
		t.Fatal(err)
	}
	all, err := b.Load("test")
	if err != nil || len(all) != 3920 || !b.Check(all[0].Answer, all[0].Answer) || b.Check(all[1].Answer, all[0].Answer) {
		t.Errorf("%d tasks, %v", len(all), err)
	}
	if _, err := Open("sudoku"); err == nil || !strings.Contains(err.Error(), `"sudoku" is not known: there is csqa, gsm8k, math, p3, scan`) {
		t.Errorf("an unknown benchmark: %v", err)
	}
}

func FuzzParseSCAN(f *testing.F) {
	f.Add("IN: jump twice and walk OUT: I_JUMP I_JUMP I_WALK")
	f.Add("IN: a OUT: b OUT: c")
	f.Fuzz(func(t *testing.T, line string) {
		task, err := parseSCANLine(line)
		if err != nil {
			return
		}
		again, err := parseSCANLine("IN: " + task.Question + " OUT: " + task.Answer)
		if err != nil || again != task {
			t.Errorf("%q gave %+v, then %+v, %v", line, task, again, err)
		}
	})
}

func FuzzSCANCommand(f *testing.F) {
	f.Add("jump around left twice after walk opposite right")
	f.Add("turn thrice and and")
	f.Fuzz(func(t *testing.T, command string) {
		actions, err := SCANActions(command)
		steps, err2 := SCANSubtasks(command)
		if (err == nil) != (err2 == nil) {
			t.Fatalf("%q: %v but %v", command, err, err2)
		}
		if err != nil {
			return
		}
		if n := len(actions); n < 1 || n > 48 || len(steps) > 6 {
			t.Errorf("%q: %d actions in %d steps", command, n, len(steps))
		}
		var joined []string
		for _, s := range steps {
			part, err := SCANActions(s)
			if err != nil {
				t.Fatal(err)
			}
			joined = append(joined, part...)
		}
		if !slices.Equal(joined, actions) {
			t.Errorf("%q: %q in steps, %q at once", command, joined, actions)
		}
	})
}

func FuzzCheckSCAN(f *testing.F) {
	f.Add("I_JUMP  I_WALK", "I_JUMP I_WALK")
	f.Fuzz(func(t *testing.T, a, b string) {
		same := strings.Join(strings.Fields(a), " ") == strings.Join(strings.Fields(b), " ") && strings.TrimSpace(b) != ""
		if CheckSCAN(a, b) != same {
			t.Errorf("CheckSCAN(%q, %q) is not %v", a, b, same)
		}
	})
}
