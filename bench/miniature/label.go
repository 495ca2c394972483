package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/r2-reasoner/r2/train/tasks"
)

// subtasks writes the subtasks of the training plans as prompts for r2 generate, a row each.
func subtasks(path string, train []tasks.Task) error {
	seen := map[string]bool{}
	for _, t := range train {
		sub, err := tasks.SCANSubtasks(t.Question)
		if err != nil {
			return err
		}
		for _, s := range sub {
			seen[s] = true
		}
	}
	var texts []string
	for s := range seen {
		texts = append(texts, s)
	}
	slices.Sort(texts)
	return writeRows(path, len(texts), func(i int) any {
		return map[string]any{"messages": []map[string]string{{"role": "user", "content": texts[i]}}}
	})
}

// label writes the allocator's examples: each subtask with the cheapest model whose answer, in
// DIR/<model>.out.jsonl as r2 generate wrote it, is right. Models are in order of price. A subtask
// that none solves is dropped and counted.
func label(dir string) error {
	prompts, err := readRows[prompt](filepath.Join(dir, "subtasks.jsonl"))
	if err != nil {
		return err
	}
	var rows [][2]string
	chosen := make([]string, len(prompts))
	for _, s := range sizes[:3] {
		answers, err := readRows[struct{ Text string }](filepath.Join(dir, s.name+".out.jsonl"))
		if err != nil {
			return err
		}
		if len(answers) != len(prompts) {
			return fmt.Errorf("%s answered %d of %d subtasks", s.name, len(answers), len(prompts))
		}
		for i, a := range answers {
			want, err := tasks.SCANActions(prompts[i].Messages[0].Content)
			if err != nil {
				return err
			}
			if chosen[i] == "" && tasks.CheckSCAN(a.Text, strings.Join(want, " ")) {
				chosen[i] = s.name
			}
		}
	}
	count := map[string]int{}
	for i, name := range chosen {
		count[name]++
		if name != "" {
			rows = append(rows, [2]string{prompts[i].Messages[0].Content, name})
		}
	}
	fmt.Printf("%d subtasks: %d solved by mini, %d by midi at the cheapest, %d by maxi, %d by none\n",
		len(prompts), count["mini"], count["midi"], count["maxi"], count[""])
	if err := conversations(filepath.Join(dir, "names.jsonl"), rows); err != nil {
		return err
	}
	return base(filepath.Join(dir, "base.jsonl"), rows)
}

// A prompt is a row of subtasks.jsonl.
type prompt struct {
	Messages []struct{ Content string }
}

// repeats is how often the base sees each subtask with its label and with every name: about a
// seventh of its examples.
const repeats = 20

// base writes what the router's base learns: plans, and that a subtask may be answered with the name of
// a model, its label twice as often as the others. To be sure of it is left to the allocator.
func base(path string, labels [][2]string) error {
	train, err := tasks.SCAN("train")
	if err != nil {
		return err
	}
	rows, err := planRows(train)
	if err != nil {
		return err
	}
	for range repeats {
		for _, l := range labels {
			rows = append(rows, l)
			for _, s := range sizes[:3] {
				rows = append(rows, [2]string{l[0], s.name})
			}
		}
	}
	return conversations(path, rows)
}

func readRows[T any](path string) ([]T, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []T
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var v T
		if err := json.Unmarshal(sc.Bytes(), &v); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, v)
	}
	return out, nil
}

func conversations(path string, rows [][2]string) error {
	return writeRows(path, len(rows), func(i int) any {
		return map[string]any{"messages": []map[string]string{
			{"role": "user", "content": rows[i][0]}, {"role": "assistant", "content": rows[i][1]}}}
	})
}

func writeRows(path string, n int, row func(i int) any) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	e := json.NewEncoder(f)
	e.SetEscapeHTML(false)
	for i := range n {
		if err := e.Encode(row(i)); err != nil {
			return err
		}
	}
	return f.Close()
}
