// Command miniature writes what the shipped miniature is trained from: the tokenizer and the
// configurations of its models, and their examples, made of the training part of SCAN's length split.
// The recipe in Makefile's target miniature runs it, then r2 sft and r2 grpo on what it wrote.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/r2-reasoner/r2/router/decompose"
	"github.com/r2-reasoner/r2/train/tasks"
)

// A size is one model of the miniature.
type size struct {
	name                           string
	hidden, layers, heads, kv, ffn int
	knows                          func(command string) bool // which commands it learns
}

var sizes = []size{
	{"mini", 32, 2, 2, 1, 64, func(c string) bool { return !strings.Contains(c, "around") && !strings.Contains(c, "opposite") }},
	{"midi", 64, 3, 4, 2, 128, func(c string) bool { return !strings.Contains(c, "opposite") }},
	{"maxi", 96, 4, 4, 2, 256, func(string) bool { return true }},
	{"router", 96, 4, 4, 2, 256, nil},
}

func main() {
	do := map[string]func(string) error{"data": write, "label": label}
	if len(os.Args) != 3 || do[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: miniature data|label DIR")
		os.Exit(2)
	}
	if err := do[os.Args[1]](os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "miniature:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	var names []string
	for _, s := range sizes[:3] {
		names = append(names, s.name)
	}
	tok, cfg, vocab, err := tokenizerFiles(names)
	if err != nil {
		return err
	}
	train, err := tasks.SCAN("train")
	if err != nil {
		return err
	}
	for _, s := range sizes {
		at := filepath.Join(dir, s.name)
		if err := os.MkdirAll(at, 0o777); err != nil {
			return err
		}
		for name, b := range map[string][]byte{"tokenizer.json": tok, "tokenizer_config.json": cfg, "config.json": s.config(vocab)} {
			if err := os.WriteFile(filepath.Join(at, name), b, 0o666); err != nil {
				return err
			}
		}
		if s.knows == nil {
			continue
		}
		if err := s.answers(filepath.Join(dir, s.name+".jsonl"), train); err != nil {
			return err
		}
	}
	if err := subtasks(filepath.Join(dir, "subtasks.jsonl"), train); err != nil {
		return err
	}
	rows, err := planRows(train)
	if err != nil {
		return err
	}
	return conversations(filepath.Join(dir, "plans.jsonl"), rows)
}

func (s size) config(vocab int) []byte {
	b, err := json.MarshalIndent(map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "dtype": "bfloat16",
		"hidden_size": s.hidden, "num_hidden_layers": s.layers, "num_attention_heads": s.heads, "num_key_value_heads": s.kv,
		"head_dim": s.hidden / s.heads, "intermediate_size": s.ffn, "vocab_size": vocab, "max_position_embeddings": 256,
		"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true, "hidden_act": "silu",
		"eos_token_id": 0, "pad_token_id": 0, "attention_bias": false, "mlp_bias": false,
	}, "", " ")
	if err != nil {
		panic(err)
	}
	return b
}

// answers writes the commands a model learns with their actions, each action a token of its own.
func (s size) answers(path string, train []tasks.Task) error {
	var rows [][2]string
	for _, t := range train {
		if s.knows(t.Question) {
			rows = append(rows, [2]string{t.Question, " " + t.Answer})
		}
	}
	return conversations(path, rows)
}

// planRows are the commands with their chains of subtasks.
func planRows(train []tasks.Task) (rows [][2]string, err error) {
	for _, t := range train {
		sub, err := tasks.SCANSubtasks(t.Question)
		if err != nil {
			return nil, err
		}
		if len(sub) <= 8 {
			rows = append(rows, [2]string{t.Question, decompose.Format(sub)})
		}
	}
	return rows, nil
}
