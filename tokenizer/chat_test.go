package tokenizer

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/r2-reasoner/r2/model/modeltest"
)

// TestChatGoldens: every render of the reference, to the byte, and its refusals.
func TestChatGoldens(t *testing.T) {
	total := 0
	for _, name := range []string{"llama3", "qwen2_5", "qwen3", "smollm2"} {
		var golden struct {
			Template string
			Cases    []struct {
				Name      string
				Messages  []Object
				Tools     []json.RawMessage
				AddPrompt bool `json:"add_generation_prompt"`
				Continue  bool `json:"continue_final_message"`
				Variables map[string]any
				Rendered  *string
				Error     string
			}
		}
		data, err := os.ReadFile(modeltest.Shared(t, "goldens", "chat", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &golden); err != nil {
			t.Fatal(err)
		}
		template, err := ParseTemplate(golden.Template)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range golden.Cases {
			total++
			chat := Chat{Messages: c.Messages, AddGenerationPrompt: c.AddPrompt, ContinueFinalMessage: c.Continue, Variables: c.Variables}
			for _, raw := range c.Tools {
				tool, err := ParseValue(raw)
				if err != nil {
					t.Fatal(err)
				}
				chat.Tools = append(chat.Tools, tool)
			}
			got, err := template.Chat(chat)
			switch {
			case c.Rendered == nil && err == nil:
				t.Errorf("%s %s: rendered %q, want the error %q", name, c.Name, got, c.Error)
			case c.Rendered != nil && err != nil:
				t.Errorf("%s %s: %v", name, c.Name, err)
			case c.Rendered != nil && got != *c.Rendered:
				t.Errorf("%s %s:\n got %q\nwant %q", name, c.Name, got, *c.Rendered)
			}
		}
	}
	if total < 118 {
		t.Errorf("%d cases, there were 118", total)
	}
}
