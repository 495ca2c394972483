package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/kernels/cpu"
)

// Prompts are not held in memory, with all that belongs to them: after 32 MB of rows were checked, and after each was
// read, next to nothing of them is left.
func TestPromptsAreNotHeld(t *testing.T) {
	const count = 32
	path := filepath.Join(t.TempDir(), "prompts.jsonl")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	note := bytes.Repeat([]byte("x"), 1<<20)
	for i := range count {
		fmt.Fprintf(f, `{"prompt":"walk %d","note":"%s"}`+"\n", i, note)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	c := &grpoCmd{Data: path, MaxTokens: 4, RewardCmd: "true", dataFlags: dataFlags{Long: "error"}}
	c.Quiet = true
	s := scorerOf(t, c)
	before := live()
	all, err := s.tasks(c)
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	if all.count() != count {
		t.Fatalf("%d tasks, want %d", all.count(), count)
	}
	for _, i := range rand.Perm(count) {
		ts, err := all.read([]int{i})
		if err != nil || ts[0].prompt != fmt.Sprintf("walk %d", i) || len(ts[0].fields["note"]) != len(note)+2 || ts[0].place != fmt.Sprintf("%s:%d", path, i+1) {
			t.Fatalf("row %d: %q at %s, %v", i, ts[0].prompt, ts[0].place, err)
		}
	}
	if grown := live() - before; grown > count<<20/8 {
		t.Errorf("of %d MiB of rows %d KiB stay in memory", count, grown>>10)
	}
	runtime.KeepAlive(all)
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), count<<20), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := all.read([]int{3}); err == nil || !strings.Contains(err.Error(), path+":4: ") || !strings.Contains(err.Error(), "changed") {
		t.Errorf("a file that was changed: %v", err)
	}
}

// live is the bytes of the heap that are in use.
func live() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// scorerOf is the scorer of a run of the smallest model that is shipped.
func scorerOf(t *testing.T, c *grpoCmd) *scorer {
	t.Helper()
	be := cpu.New(1)
	t.Cleanup(be.Close)
	f := trainFlags{model: shipped("mini"), lora: "r=1,alpha=1", deviceFlags: deviceFlags{DType: "auto", Acts: "f32"}}
	h, _, _, err := openPolicy(be, f, hostOptions{sequences: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	s, err := newScorer(h, c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A benchmark's questions are numbered as they stand in it, whatever was left out.
func TestQuestionsKeepTheirNumbers(t *testing.T) {
	long := strings.TrimSpace(strings.Repeat("walk and ", 3000))
	file := filepath.Join(t.TempDir(), "scan.txt")
	if err := os.WriteFile(file, []byte("IN: walk OUT: I_WALK\nIN: "+long+" OUT: I_WALK\nIN: jump OUT: I_JUMP\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	c := &grpoCmd{Data: file, Task: "scan", MaxTokens: 4, dataFlags: dataFlags{Long: "drop"}}
	c.Quiet = true
	all, err := scorerOf(t, c).tasks(c)
	if err != nil {
		t.Fatal(err)
	}
	ts, err := all.read([]int{1, 0})
	if err != nil || all.count() != 2 || all.longest != max(len(ts[0].ids), len(ts[1].ids)) || !slices.Equal(places(ts), []string{"scan:3", "scan:1"}) ||
		ts[0].prompt != "jump" || ts[0].answer != "I_JUMP" {
		t.Errorf("%d tasks of at most %d tokens, %v %v", all.count(), all.longest, places(ts), err)
	}
}

// Each epoch is the permutation that the seed and its number give, whatever was asked for before, and a step goes on
// in the next where one ends.
func TestShuffle(t *testing.T) {
	const seed, n = 7, 5
	perm := func(epoch int) []int { return rand.New(rand.NewPCG(seed, uint64(epoch))).Perm(n) }
	s := &shuffle{seed: seed, n: n}
	for _, epoch := range []int{0, 3, 3, 1, 0} {
		if got := s.in(epoch); !slices.Equal(got, perm(epoch)) {
			t.Errorf("epoch %d: %v, want %v", epoch, got, perm(epoch))
		}
	}
	c := &grpoCmd{Prompts: 3, Refill: 2}
	c.Seed = seed
	all := append(append(perm(0), perm(1)...), perm(2)...)
	for _, step := range []int{4, 0, 1, 3, 2} {
		tasks, spare := c.draw(s, step)
		if !slices.Equal(tasks, all[3*step:3*step+3]) || len(spare) != 2 || max(spare[0], spare[1]) >= n {
			t.Errorf("step %d: %v and %v, want %v", step, tasks, spare, all[3*step:3*step+3])
		}
	}
	plain := &shuffle{n: n, plain: true}
	if a, b := slices.Clone(plain.in(0)), plain.in(4); !slices.Equal(a, []int{0, 1, 2, 3, 4}) || !slices.Equal(a, b) {
		t.Errorf("in file order: %v, then %v", a, b)
	}
}
