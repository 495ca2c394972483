package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	openaigo "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// A clientStep is one of testdata/client.json: a call that both of OpenAI's clients make, whole and streamed.
type clientStep struct {
	Name, Call string
	Body       json.RawMessage
	Extra      map[string]any
	Want       map[string]any
}

func serveForClients(t *testing.T) string {
	t.Helper()
	return start(t, "--model", shipped("router"), "--adapter", "allocator="+shipped("allocator"), "--config", filepath.Join("miniature", "r2.yaml"))
}

// The client that OpenAI publishes for Go makes every call of the script, and finds what is wanted.
func TestGoClient(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "client.json"))
	if err != nil {
		t.Fatal(err)
	}
	var steps []clientStep
	if err := json.Unmarshal(b, &steps); err != nil {
		t.Fatal(err)
	}
	c := openaigo.NewClient(option.WithBaseURL(serveForClients(t)), option.WithAPIKey("none"), option.WithMaxRetries(0))
	for _, s := range steps {
		if s.Call == "models" {
			page, err := c.Models.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var ids []any
			for _, m := range page.Data {
				ids = append(ids, m.ID)
			}
			if !slices.Equal(ids, s.Want["ids"].([]any)) {
				t.Errorf("%s: %v", s.Name, ids)
			}
			continue
		}
		for how, run := range map[string]func(context.Context, openaigo.Client, clientStep) (map[string]any, error){"whole": goWhole, "streamed": goStreamed} {
			got, err := run(t.Context(), c, s)
			var e *openaigo.Error
			if errors.As(err, &e) {
				got = map[string]any{"status": float64(e.StatusCode), "param": e.Param}
			} else if err != nil {
				t.Errorf("%s (%s): %v", s.Name, how, err)
				continue
			}
			for key, want := range s.Want {
				have := got[key]
				if key == "begins" {
					text, _ := got["text"].(string)
					have = text[:min(len(text), len(want.(string)))]
				}
				if have != want {
					t.Errorf("%s (%s): %s %v, want %v", s.Name, how, key, have, want)
				}
			}
		}
	}
}

func (s clientStep) options() (out []option.RequestOption) {
	for name, v := range s.Extra {
		out = append(out, option.WithJSONSet(name, v))
	}
	return out
}

// goCost reports whether a usage has a cost.
func goCost(raw string) bool {
	var u struct{ Cost float64 }
	return json.Unmarshal([]byte(raw), &u) == nil && u.Cost > 0
}

func goWhole(ctx context.Context, c openaigo.Client, s clientStep) (map[string]any, error) {
	if s.Call == "chat" {
		var p openaigo.ChatCompletionNewParams
		if err := json.Unmarshal(s.Body, &p); err != nil {
			return nil, err
		}
		r, err := c.Chat.Completions.New(ctx, p, s.options()...)
		if err != nil {
			return nil, err
		}
		ch := r.Choices[0]
		return map[string]any{"text": ch.Message.Content, "finish": ch.FinishReason, "prompt": float64(r.Usage.PromptTokens),
			"completion": float64(r.Usage.CompletionTokens), "cost": goCost(r.Usage.RawJSON()), "logprobs": float64(len(ch.Logprobs.Content))}, nil
	}
	var p openaigo.CompletionNewParams
	if err := json.Unmarshal(s.Body, &p); err != nil {
		return nil, err
	}
	r, err := c.Completions.New(ctx, p, s.options()...)
	if err != nil {
		return nil, err
	}
	return map[string]any{"text": r.Choices[0].Text, "finish": string(r.Choices[0].FinishReason), "prompt": float64(r.Usage.PromptTokens),
		"completion": float64(r.Usage.CompletionTokens)}, nil
}

func goStreamed(ctx context.Context, c openaigo.Client, s clientStep) (map[string]any, error) {
	got, text := map[string]any{}, ""
	options := append(s.options(), option.WithJSONSet("stream_options", map[string]bool{"include_usage": true}))
	if s.Call == "chat" {
		var p openaigo.ChatCompletionNewParams
		if err := json.Unmarshal(s.Body, &p); err != nil {
			return nil, err
		}
		logprobs := 0
		stream := c.Chat.Completions.NewStreaming(ctx, p, options...)
		for stream.Next() {
			r := stream.Current()
			if r.Usage.PromptTokens > 0 {
				got["prompt"], got["completion"], got["cost"] = float64(r.Usage.PromptTokens), float64(r.Usage.CompletionTokens), goCost(r.Usage.RawJSON())
			}
			for _, ch := range r.Choices {
				if ch.Index == 0 {
					text += ch.Delta.Content
					logprobs += len(ch.Logprobs.Content)
					if ch.FinishReason != "" {
						got["finish"] = ch.FinishReason
					}
				}
			}
		}
		got["text"], got["logprobs"] = text, float64(logprobs)
		return got, stream.Err()
	}
	var p openaigo.CompletionNewParams
	if err := json.Unmarshal(s.Body, &p); err != nil {
		return nil, err
	}
	stream := c.Completions.NewStreaming(ctx, p, options...)
	for stream.Next() {
		r := stream.Current()
		if r.Usage.PromptTokens > 0 {
			got["prompt"], got["completion"] = float64(r.Usage.PromptTokens), float64(r.Usage.CompletionTokens)
		}
		for _, ch := range r.Choices {
			if ch.Index == 0 {
				text += ch.Text
				if ch.FinishReason != "" {
					got["finish"] = string(ch.FinishReason)
				}
			}
		}
	}
	got["text"] = text
	return got, stream.Err()
}

// The client that OpenAI publishes for Python does too, where it is installed.
func TestPythonClient(t *testing.T) {
	python := filepath.Join("..", "..", ".cache", "openai", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		t.Skip("the Python client is not installed: make openai-client")
	}
	out, err := exec.Command(python, filepath.Join("testdata", "client.py"), serveForClients(t)).CombinedOutput()
	if err != nil || !strings.Contains(string(out), " 0 differences") {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
