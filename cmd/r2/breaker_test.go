package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/openai"
)

// A served router whose cheapest member, over HTTP, is down: questions fail by name, then go to others, which the
// trace and the metrics tell.
func TestServeWithoutMember(t *testing.T) {
	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	defer down.Close()
	home, err := filepath.Abs("miniature")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(home, "r2.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config := string(text)
	for from, to := range map[string]string{"model: mini,": "url: " + down.URL + "/v1,", "model: midi,": "model: " + home + "/midi,", "model: maxi,": "model: " + home + "/maxi,",
		"model: router\n": "model: " + home + "/router\n", "adapter: decomposer": "adapter: " + home + "/decomposer", "adapter: allocator": "adapter: " + home + "/allocator"} {
		if !strings.Contains(config, from) {
			t.Fatalf("the miniature's configuration has no %q", from)
		}
		config = strings.Replace(config, from, to, 1)
	}
	file := filepath.Join(t.TempDir(), "r2.yaml")
	if err := os.WriteFile(file, []byte(config), 0o666); err != nil {
		t.Fatal(err)
	}
	url := start(t, "--config", file)
	ask := func() (status int, code string, tr router.Trace) {
		t.Helper()
		r, err := http.Post(url+"/chat/completions", "application/json", strings.NewReader(`{"model":"r2","messages":[{"role":"user","content":"jump thrice"}],"r2":{"trace":true}}`))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		var got struct {
			Error openai.Error
			R2    struct{ Trace router.Trace }
		}
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Fatal(err)
		}
		if got.Error.Code != nil {
			code = *got.Error.Code
		}
		return r.StatusCode, code, got.R2.Trace
	}
	for end := time.Now().Add(time.Minute); ; {
		status, code, tr := ask()
		if status == 200 {
			if !slices.Equal(tr.LeftOut, []string{"mini"}) || slices.Contains(tr.Models(), "mini") {
				t.Errorf("by %q, left out %q", tr.Models(), tr.LeftOut)
			}
			break
		}
		if status != 503 || code != "busy" && code != "unavailable" || tr.Stopped != router.StageSolve || time.Now().After(end) {
			t.Fatalf("%d %s, stopped in %s", status, code, tr.Stopped)
		}
	}
	r, err := http.Get(strings.TrimSuffix(url, "/v1") + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`r2:pool_breaker_state\{model="mini"\} [12]`, `r2:pool_breaker_state\{model="midi"\} 0`} { // 1: it took ten seconds to ask
		if !regexp.MustCompile("\n" + line + "\n").Match(b) {
			t.Errorf("no %s in the metrics", line)
		}
	}
}
