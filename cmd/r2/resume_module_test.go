package main

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newMember is a model of a pool, served over HTTP: it says one of a few things, by a hash of what it was asked.
func newMember(t *testing.T, delay time.Duration) *grader {
	g := &grader{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.asked.Add(1)
		g.busy.Add(1)
		defer g.busy.Add(-1)
		time.Sleep(delay)
		h := fnv.New32a()
		io.Copy(h, r.Body)
		text := []string{" I_WALK", " I_TURN_LEFT", " I_JUMP I_JUMP", " I_LOOK"}[h.Sum32()%4]
		json.NewEncoder(w).Encode(map[string]any{"object": "chat.completion", "model": "remote",
			"choices": []any{map[string]any{"index": 0, "finish_reason": "stop", "message": map[string]any{"role": "assistant", "content": text}}},
			"usage":   map[string]any{"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}})
	}))
	t.Cleanup(s.Close)
	g.url = s.URL
	return g
}

// remoteConfig is the shipped router's configuration with one model of its pool behind a URL.
func remoteConfig(t *testing.T, url string) string {
	t.Helper()
	b, err := os.ReadFile(shipped("r2.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs(shipped(""))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), "model: midi,", "url: "+url+"/v1,", 1)
	for _, path := range []string{"model: router", "adapter: decomposer", "adapter: allocator", "model: mini", "model: maxi"} {
		key, name, _ := strings.Cut(path, ": ")
		text = strings.Replace(text, path, key+": "+filepath.Join(here, name), 1)
	}
	file := filepath.Join(t.TempDir(), "r2.yaml")
	if strings.Count(text, url) != 1 || strings.Count(text, here) != 5 {
		t.Fatal(text)
	}
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return file
}

// Runs that train a module of the router are taken up like all others: their rewards come from the journal,
// and what the pool answered over HTTP is not asked for again.
func TestKilledModuleRunsGoOn(t *testing.T) {
	g := newMember(t, 2*time.Millisecond)
	config := remoteConfig(t, g.url)
	for module, args := range map[string][]string{
		"allocator":  {"--max-tokens", "8", "--stepwise", "--cost", "0.5"},
		"decomposer": {"--max-tokens", "48", "--refill", "2"},
	} {
		t.Run(module, func(t *testing.T) {
			args = append([]string{"grpo", "--module", module, "--config", config, "--task", "scan", "--steps", "12", "--prompts", "4", "--samples", "4",
				"--lr", "1e-3", "--save-every", "2", "-q"}, args...)
			killAndCompare(t, g, args, func(t *testing.T, whole, killed string) int {
				want, got := poolAnswers(t, whole), poolAnswers(t, killed)
				if !maps.Equal(want, got) {
					t.Errorf("a killed run has %d answers of the pool, the whole run %d, or others", len(got), len(want))
				}
				return len(got)
			}, 8)
		})
	}
}

// poolAnswers are the requests that went over HTTP in a run, each with its answer.
func poolAnswers(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, row := range tableRows(t, filepath.Join(dir, "pool.db"), "exchanges") {
		if row["model"] == "midi" {
			out[fmt.Sprint(row["request"])] = fmt.Sprint(row["completion"])
		}
	}
	if len(out) == 0 {
		t.Errorf("%s has no answers of the pool", dir)
	}
	return out
}
