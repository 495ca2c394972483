package tasks

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// ParseP3 reads the JSON array {sat, ans_type, sol_header, sol_docstring} of Programming Puzzles
// (Schuster et al. 2021). The question shows the predicate and the header of the solution to write; a
// task's Answer is the predicate's source.
func ParseP3(r io.Reader, name string) ([]Task, error) {
	var rows []struct {
		Name, Sat string
		Type      string `json:"ans_type"`
		Header    string `json:"sol_header"`
		Doc       string `json:"sol_docstring"`
	}
	if err := json.NewDecoder(r).Decode(&rows); err != nil {
		return nil, err
	}
	var all []Task
	for i, row := range rows {
		if !strings.Contains(row.Sat, "def sat(") || row.Header == "" {
			return nil, fmt.Errorf("puzzle %d (%.40q) has no sat or no sol_header", i+1, row.Name)
		}
		q := row.Sat + "\n\n" + row.Header + "\n"
		if row.Doc != "" {
			q += row.Doc + "\n"
		}
		all = append(all, Task{ID: name + "/" + row.Name, Question: q, Answer: row.Sat})
	}
	return all, nil
}

// The bounds of a puzzle's answer.
const (
	p3Seconds = 5
	p3Bytes   = 1 << 29 // of address space
)

// p3Judge is run by Python with nothing but the standard library; its own first lines say what it does.
//
//go:embed p3.py
var p3Judge string

// ErrNoJudge says that a puzzle's answer could not be run, right or wrong.
var ErrNoJudge = errors.New("the answer could not be run")

// RunP3 runs an answer, the source of a function sol, against the source of a predicate sat. It is
// right when sat(sol()) is True within 5 s and 512 MiB: Python runs in a process of its own, in a
// group of its own that is ended with it, in an empty folder, without the environment, and where the
// system allows it ([AloneP3]) without a network. An error wraps ErrNoJudge.
func RunP3(ctx context.Context, answer, sat string) (bool, error) {
	return askP3(ctx, map[string]any{"answer": program(answer), "sat": sat, "seconds": p3Seconds, "bytes": p3Bytes}, "right", "wrong")
}

// AloneP3 reports whether answers have no network: whether a process here may make a user namespace of its own with
// a network namespace in it. Containers and hardened systems often forbid that. An error wraps ErrNoJudge.
func AloneP3(ctx context.Context) (bool, error) {
	return askP3(ctx, map[string]any{"probe": true, "seconds": p3Seconds}, "alone", "not alone")
}

// askP3 reports which of two words the judge says about a task.
func askP3(ctx context.Context, task map[string]any, yes, no string) (bool, error) {
	python, err := exec.LookPath("python3")
	if err != nil {
		return false, fmt.Errorf("%w: there is no python3", ErrNoJudge)
	}
	dir, err := os.MkdirTemp("", "r2-p3-")
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrNoJudge, err)
	}
	defer os.RemoveAll(dir)
	in, err := json.Marshal(task)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrNoJudge, err)
	}
	ctx, cancel := context.WithTimeout(ctx, (p3Seconds+5)*time.Second) // the judge ends itself before this
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "-I", "-S", "-c", p3Judge)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, []string{"LC_ALL=C.UTF-8"}, bytes.NewReader(in)
	cmd.WaitDelay = time.Second
	apart(cmd)
	var out bytes.Buffer
	cmd.Stdout = &out
	err = cmd.Run()
	switch verdict := out.String(); {
	case verdict == yes+"\n":
		return true, nil
	case verdict == no+"\n":
		return false, nil
	case err == nil || ctx.Err() == context.Canceled:
		return false, fmt.Errorf("%w: Python said %.80q", ErrNoJudge, verdict)
	default:
		return false, fmt.Errorf("%w: %w", ErrNoJudge, err)
	}
}

// program is the code of an answer: what its last fence holds, or all of it.
func program(answer string) string {
	_, after, ok := strings.Cut(answer, "```")
	if !ok {
		return answer
	}
	if i := strings.LastIndex(after, "```"); i >= 0 {
		after = after[:i]
		if j := strings.LastIndex(after, "```"); j >= 0 {
			after = after[j+3:]
		}
	}
	return strings.TrimPrefix(strings.TrimPrefix(after, "python"), "\n")
}
