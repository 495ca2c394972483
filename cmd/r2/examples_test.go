package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/tokenizer"
)

// What is learnt of a row: the completion and its end, what assistants say up to their end, or what the
// mask says; never a prompt.
func TestLearn(t *testing.T) {
	tok, err := tokenizer.Open(shipped("maxi"))
	if err != nil {
		t.Fatal(err)
	}
	v := &vocabulary{text: tok, size: tok.Size(), eos: []int32{0}}
	str := func(s string) *string { return &s }
	turn := func(role, text string) router.Message { return router.Message{Role: role, Content: text} }
	for _, c := range []struct {
		name string
		e    example
		want string // learnt tokens in brackets
		err  string
	}{
		{"completion", example{Prompt: str("walk"), Completion: str(" left")}, "walk[ left][<|end|>]", ""},
		{"completion that ends itself", example{Prompt: str("walk"), Completion: str(" left<|end|>")}, "walk[ left][<|end|>]", ""},
		{"empty completion", example{Prompt: str("walk"), Completion: str("")}, "walk[<|end|>]", ""},
		{"conversation", example{Messages: []router.Message{turn("user", "walk"), turn("assistant", " I_WALK"), turn("user", "run"), turn("assistant", " I_RUN I_RUN")}},
			"<|user|>walk<|end|><|assistant|>[ I_WALK][<|end|>]<|user|>run<|end|><|assistant|>[ I_RUN][ I_RUN][<|end|>]", ""},
		{"a question after it", example{Messages: []router.Message{turn("user", "walk"), turn("assistant", " I_WALK"), turn("user", "run")}},
			"<|user|>walk<|end|><|assistant|>[ I_WALK][<|end|>]<|user|>run<|end|>", ""},
		{"tokens", example{Tokens: []int32{280, 319, 0}, Mask: []int{0, 1, 0}}, "jump[ left]<|end|>", ""},
		{"no answer", example{Messages: []router.Message{turn("user", "walk")}}, "", "nothing to learn"},
		{"a short mask", example{Tokens: []int32{280, 319}, Mask: []int{1}}, "", "mask has 1"},
		{"an unknown id", example{Tokens: []int32{280, 5000}}, "", "id 5000"},
		{"nothing", example{}, "", "want"},
		{"an empty row", example{Tokens: []int32{}}, "", "empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x, err := v.learn(&c.e, true)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want one that says %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for i, id := range x.Tokens {
				if x.Mask[i] {
					fmt.Fprintf(&got, "[%s]", tok.Bytes(id))
				} else {
					got.Write(tok.Bytes(id))
				}
			}
			if got.String() != c.want {
				t.Errorf("%s\nwant\n%s", got.String(), c.want)
			}
		})
	}
}
