// Package tasks holds benchmarks: how to load their tasks, how to split them, and how to check an
// answer. Checkers are pure functions of two texts.
package tasks

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// A Task is a question whose answer is known.
type Task struct {
	ID       string // unique within its benchmark, the same in every run
	Question string
	Answer   string
}

// A Checker reports whether an answer is as good as the known one.
type Checker func(answer, known string) bool

// A Benchmark is a named set of tasks.
type Benchmark struct {
	Name  string
	Load  func(split string) ([]Task, error)                            // split is one of Splits
	Parse func(r io.Reader, name string) ([]Task, error)                // a file of the benchmark as it is published
	Check Checker                                                       // nil where an answer has to be run
	Run   func(ctx context.Context, answer, known string) (bool, error) // where Check is nil; an error is no verdict
	Alone func(ctx context.Context) (bool, error)                       // beside Run: whether what is run has no network
	Ask   string                                                        // what a question needs behind it for the answer to be found
}

// Splits are the parts of every benchmark. What is in test is in neither of the others; dev is the
// part of the training data that Held picks.
var Splits = []string{"train", "dev", "test"}

var benchmarks = map[string]Benchmark{
	"scan": {Name: "scan", Load: SCAN, Parse: ParseSCAN, Check: CheckSCAN},
	"gsm8k": {Name: "gsm8k", Load: elsewhere("gsm8k"), Parse: ParseGSM8K, Check: CheckGSM8K,
		Ask: "\nEnd your answer with #### and the number."},
	"math": {Name: "math", Load: elsewhere("math"), Parse: ParseMATH, Check: CheckMATH,
		Ask: "\nPut the final answer in \\boxed{}."},
	"csqa": {Name: "csqa", Load: elsewhere("csqa"), Parse: ParseCSQA, Check: CheckCSQA,
		Ask: "\nAnswer with the letter of the right choice."},
	"p3": {Name: "p3", Load: elsewhere("p3"), Parse: ParseP3, Run: RunP3, Alone: AloneP3,
		Ask: "\nWrite the Python function sol so that sat(sol()) is True. Answer with its code alone."},
}

// Open returns the benchmark of that name.
func Open(name string) (Benchmark, error) {
	b, ok := benchmarks[name]
	if !ok {
		return b, fmt.Errorf("benchmark %q is not known: there is %s", name, strings.Join(slices.Sorted(maps.Keys(benchmarks)), ", "))
	}
	return b, nil
}

// Held reports whether a question of the training data belongs to dev: one in twenty does, by its text
// alone, so a question keeps its side whatever else is added or removed.
func Held(question string) bool {
	h := sha256.Sum256([]byte(question))
	return binary.BigEndian.Uint64(h[:8])%20 == 0
}

// part keeps the tasks of split, of those that stand in a benchmark's training file.
func part(all []Task, split string) []Task {
	var out []Task
	for _, t := range all {
		if Held(t.Question) == (split == "dev") {
			out = append(out, t)
		}
	}
	return out
}
