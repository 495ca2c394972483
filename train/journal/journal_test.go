package journal

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func open(t *testing.T, path string) *Journal {
	t.Helper()
	j, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func asked() (rs []Reward) {
	for p := range 2 {
		for s := range 3 {
			rs = append(rs, Reward{Prompt: p, Sample: s, Input: fmt.Appendf(nil, "%d/%d", p, s)})
		}
	}
	return rs
}

// What was recorded comes back to the bit after the file was closed; what was not is not made up.
func TestReplay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal with space?.db")
	want := asked()
	for i, v := range []float32{0, -0.1, math.SmallestNonzeroFloat32, math.MaxFloat32, 1.0 / 3} {
		want[i].Value = v
	}
	want[5].Failure = "no judge"
	j := open(t, path)
	x := &Exchange{Source: "http://judge", Request: []byte("{}\n"), Response: []byte("{\"reward\":1}\n")}
	if err := j.Record(t.Context(), Call{3, 1}, x, want, 0); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, path)
	defer j.Close()
	got := asked()
	if ok, err := j.Replay(t.Context(), Call{3, 1}, got); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, c := range []Call{{3, 0}, {2, 1}, {4, 1}} {
		if ok, err := j.Replay(t.Context(), c, asked()); ok || err != nil {
			t.Errorf("%v: %v %v", c, ok, err)
		}
	}
}

// Rewards are of the completions they were given to, and of no others.
func TestOtherCompletions(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j.db"))
	defer j.Close()
	if err := j.Record(t.Context(), Call{0, 0}, nil, asked(), 0); err != nil {
		t.Fatal(err)
	}
	changed := asked()
	changed[4].Input = []byte("else")
	for _, rs := range [][]Reward{changed, asked()[:5], append(asked(), Reward{Prompt: 2})} {
		if ok, err := j.Replay(t.Context(), Call{0, 0}, rs); ok || err == nil || !strings.Contains(err.Error(), "step 1") {
			t.Errorf("%d rewards: %v %v", len(rs), ok, err)
		}
	}
	if err := j.Record(t.Context(), Call{0, 0}, nil, asked(), 0); err == nil {
		t.Error("a call was recorded twice")
	}
}

// A call is there whole or not at all.
func TestAllOrNone(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j.db"))
	defer j.Close()
	twice := append(asked(), asked()[0])
	if err := j.Record(t.Context(), Call{0, 0}, &Exchange{Request: []byte("x"), Response: []byte("y")}, twice, 0); err == nil {
		t.Fatal("one place has two rewards")
	}
	if ok, err := j.Replay(t.Context(), Call{0, 0}, asked()); ok || err != nil {
		t.Error(ok, err)
	}
	if err := j.Record(t.Context(), Call{0, 0}, nil, asked(), 0); err != nil {
		t.Error(err)
	}
}

// A step that is forgotten can be recorded anew; others stay.
func TestForget(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j.db"))
	defer j.Close()
	for _, c := range []Call{{3, 0}, {3, 1}, {4, 0}} {
		if err := j.Record(t.Context(), c, &Exchange{Request: []byte("x"), Response: []byte("y")}, asked(), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Forget(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	for c, want := range map[Call]bool{{3, 0}: false, {3, 1}: false, {4, 0}: true} {
		if ok, err := j.Replay(t.Context(), c, asked()); ok != want || err != nil {
			t.Errorf("%v: %v %v, want %v", c, ok, err, want)
		}
	}
	if err := j.Record(t.Context(), Call{3, 0}, &Exchange{Request: []byte("x"), Response: []byte("y")}, asked(), 0); err != nil {
		t.Error(err)
	}
}
