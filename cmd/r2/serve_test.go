package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	openaigo "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// start runs r2 serve on a free port and returns the API's URL. At the end it is told to stop, and must.
func start(t *testing.T, args ...string) string {
	t.Helper()
	url, stop := startInto(t, io.Discard, args...)
	t.Cleanup(stop)
	return url
}

// startInto runs r2 serve, which says what it says on standard error to log, and stops it.
func startInto(t *testing.T, log io.Writer, args ...string) (url string, stop func()) {
	t.Helper()
	url, p, ended := launch(t, log, args...)
	return url, func() {
		p.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(20 * time.Second):
			p.Kill()
			t.Error("serve did not stop")
		}
	}
}

// launch runs r2 serve, and tells how it ends.
func launch(t *testing.T, log io.Writer, args ...string) (url string, p *os.Process, ended <-chan error) {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	errs, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	address, exit := make(chan string, 1), make(chan error, 1)
	go func() {
		found, sc := false, bufio.NewScanner(io.TeeReader(errs, log))
		for sc.Scan() {
			if m := regexp.MustCompile(`http://\S+`).FindString(sc.Text()); m != "" && !found {
				found = true
				address <- m
			}
		}
		close(address)
		exit <- cmd.Wait()
	}()
	at, ok := <-address
	if !ok {
		t.Fatalf("serve said no address: %v", <-exit)
	}
	return at, cmd.Process, exit
}

// The client that OpenAI publishes talks to the base, to an adapter and to r2; the router's trace comes
// on request, and its answer is the one r2 route gives.
func TestServe(t *testing.T) {
	url := start(t, "--config", filepath.Join("miniature", "r2.yaml"), "--model", shipped("maxi"))
	client := openaigo.NewClient(option.WithBaseURL(url), option.WithAPIKey("none"), option.WithMaxRetries(0))
	ctx := context.Background()
	models, err := client.Models.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range models.Data {
		names = append(names, m.ID)
	}
	if got := strings.Join(names, " "); got != "maxi midi mini r2 router" {
		t.Errorf("models: %s", got)
	}
	ask := func(model, question string) *openaigo.ChatCompletion {
		t.Helper()
		c, err := client.Chat.Completions.New(ctx, openaigo.ChatCompletionNewParams{Model: model, Temperature: openaigo.Float(0),
			Messages: []openaigo.ChatCompletionMessageParamUnion{openaigo.UserMessage(question)}})
		if err != nil {
			t.Fatalf("%s: %v", model, err)
		}
		return c
	}
	if got := strings.TrimSpace(ask("maxi", "jump around left").Choices[0].Message.Content); got != strings.TrimSpace(strings.Repeat("I_TURN_LEFT I_JUMP ", 4)) {
		t.Errorf("maxi answered %q", got)
	}
	const question, want = "jump twice after walk left", "I_TURN_LEFT I_WALK I_JUMP I_JUMP"
	if got := ask("r2", question).Choices[0].Message.Content; got != want {
		t.Errorf("r2 answered %q, want %q", got, want)
	}
	streamed(t, client, question, want)
	traced(t, url, question, want)
	get := func(path string) int {
		r, err := http.Get(strings.TrimSuffix(url, "/v1") + path)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		return r.StatusCode
	}
	for _, path := range []string{"/health", "/ready", "/metrics"} {
		if code := get(path); code != 200 {
			t.Errorf("%s: %d", path, code)
		}
	}
}

func streamed(t *testing.T, client openaigo.Client, question, want string) {
	t.Helper()
	s := client.Chat.Completions.NewStreaming(context.Background(), openaigo.ChatCompletionNewParams{Model: "r2",
		Messages: []openaigo.ChatCompletionMessageParamUnion{openaigo.UserMessage(question)}})
	var text strings.Builder
	for s.Next() {
		if c := s.Current(); len(c.Choices) > 0 {
			text.WriteString(c.Choices[0].Delta.Content)
		}
	}
	if err := s.Err(); err != nil || text.String() != want {
		t.Errorf("streamed %q (%v), want %q", text.String(), err, want)
	}
}

func traced(t *testing.T, url, question, want string) {
	t.Helper()
	body := fmt.Sprintf(`{"model":"r2","messages":[{"role":"user","content":%q}],"r2":{"trace":true}}`, question)
	r, err := http.Post(url+"/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Usage struct{ Cost json.Number }
		R2    struct {
			Trace struct {
				Answer string
				Steps  []struct{ Subtask, Model, Answer string }
			}
		}
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	if tr := got.R2.Trace; len(tr.Steps) != 3 || tr.Steps[0].Subtask != "walk left" || tr.Answer != want || got.Usage.Cost == "" || got.Usage.Cost == "0" {
		t.Errorf("trace: %s", b)
	}
}

// r2 demo does the main job: the router answers all that it plans and allocates well, for less than all
// on the dearest model, at parity 0, and writes its page.
func TestDemo(t *testing.T) {
	page := filepath.Join(t.TempDir(), "demo.html")
	s := lines[demoSummary](t, "", "demo", "--items", "40", "--json", "-q", "--out", page)[0]
	byName := map[string]methodRow{}
	for _, m := range s.Methods {
		byName[m.Method] = m
	}
	ours, all := byName["R2"], byName["plan, all on maxi"]
	if ours.Accuracy < 0.9 || ours.Cost >= all.Cost || byName["maxi alone"].Accuracy > 0.3 {
		t.Errorf("methods: %+v", s.Methods)
	}
	if s.GRPO.Parity != 0 || s.GRPO.After <= s.GRPO.Before {
		t.Errorf("grpo: %+v", s.GRPO)
	}
	b, err := os.ReadFile(page)
	if err != nil || !bytes.Contains(b, []byte("<svg")) || bytes.Contains(b, []byte("https://")) {
		t.Errorf("the page: %v, %d bytes", err, len(b))
	}
}

// r2 route answers rows and says which are right.
func TestRoute(t *testing.T) {
	in := `{"question":"walk and run left","answer":"I_WALK I_TURN_LEFT I_RUN","benchmark":"scan"}` + "\n" +
		`{"question":"jump thrice","answer":"I_WALK","benchmark":"scan"}`
	got := lines[struct {
		Answer  string
		Correct *bool
		Cost    json.Number
	}](t, in, "route", "--config", filepath.Join("miniature", "r2.yaml"), "--input", "-", "--json", "-q")
	if len(got) != 2 || !*got[0].Correct || *got[1].Correct || got[1].Answer != "I_JUMP I_JUMP I_JUMP" {
		t.Errorf("%+v", got)
	}
}

// An answer whose form is given has it: by a schema, a regular expression or as any JSON object, over HTTP and
// from the command line. A schema that cannot be kept to is refused by name.
func TestForms(t *testing.T) {
	url := start(t, "--model", shipped("maxi"))
	ask := func(fields string) (int, string) {
		t.Helper()
		r, err := http.Post(url+"/chat/completions", "application/json",
			strings.NewReader(`{"model":"maxi","max_tokens":60,"seed":3,"messages":[{"role":"user","content":"walk"}],`+fields+`}`))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Choices []struct{ Message struct{ Content string } }
		}
		if err := json.Unmarshal(b, &got); err != nil || len(got.Choices) == 0 {
			return r.StatusCode, string(b)
		}
		return r.StatusCode, got.Choices[0].Message.Content
	}
	const schema = `{"type":"object","properties":{"n":{"enum":[7,8]},"ok":{"type":"boolean"}},"required":["n","ok"]}`
	object := regexp.MustCompile(`^\{"n": ?[78], ?"ok": ?(true|false)\}$`)
	for fields, want := range map[string]*regexp.Regexp{
		`"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":` + schema + `}}`: object,
		`"structured_outputs":{"json":` + schema + `}`:                                                object,
		`"structured_outputs":{"regex":"(left|right)-[0-9]{2}"}`:                                      regexp.MustCompile(`^(left|right)-[0-9]{2}$`),
		`"response_format":{"type":"json_object"}`:                                                    regexp.MustCompile(`^\{`),
	} {
		if code, text := ask(fields); code != 200 || !want.MatchString(text) {
			t.Errorf("%s: %d %q", fields, code, text)
		}
	}
	for fields, want := range map[string]string{
		`"structured_outputs":{"json":{"type":"integer","minimum":3}}`: "minimum",
		`"structured_outputs":{"regex":"("}`:                           "regex",
		`"response_format":{"type":"xml"}`:                             "response_format",
	} {
		if code, text := ask(fields); code != 400 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %q", fields, code, text)
		}
	}
	file := filepath.Join(t.TempDir(), "schema.json")
	if err := os.WriteFile(file, []byte(schema), 0o666); err != nil {
		t.Fatal(err)
	}
	g := lines[generated](t, "", "generate", "--model", shipped("maxi"), "--chat", "walk", "--schema", file, "--json", "-q", "-n", "4")
	for _, o := range g {
		if !object.MatchString(*o.Text) || o.FinishReason != "stop" {
			t.Errorf("%q (%s)", *o.Text, o.FinishReason)
		}
	}
}
