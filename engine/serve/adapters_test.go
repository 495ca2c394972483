package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/router/openai"
)

// A shelf is a server that loads adapters from a directory: an adapter's text is its file's.
type shelf struct {
	*openai.Handler
	*script
	dir     string
	host    *Host
	removed chan int32 // slots
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	s := &shelf{script: &script{texts: []string{"base"}, slots: map[int32]string{}}, dir: t.TempDir(), removed: make(chan int32, 10)}
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	s.host = play(t, s.script, plainTemplate)
	c := &Catalog{Source: &Source{Host: s.host, Parent: "m", Root: root, Open: s.open}}
	if err := c.Add(openai.Card{Name: "m", Root: "models/m", Context: context4096}, &Model{Host: s.host}); err != nil {
		t.Fatal(err)
	}
	s.Handler = &openai.Handler{Models: c}
	return s
}

func (s *shelf) open(dir string) (a engine.Adapter, err error) {
	b, err := os.ReadFile(filepath.Join(dir, "adapter_model.safetensors"))
	if err != nil || string(b) == "bad" {
		return a, errors.Join(err, fmt.Errorf("%s: not an adapter", dir))
	}
	return engine.Adapter{Hash: string(b),
		Install: func(slot int) error {
			if string(b) == "huge" {
				return errors.New("no room")
			}
			s.slots[int32(slot)] = string(b)
			return nil
		},
		Remove: func(slot int) {
			delete(s.slots, int32(slot))
			s.removed <- int32(slot)
		}}, nil
}

// write puts an adapter into the directory.
func (s *shelf) write(t *testing.T, name, text string) {
	t.Helper()
	dir := filepath.Join(s.dir, name)
	if err := errors.Join(os.MkdirAll(dir, 0o777), os.WriteFile(filepath.Join(dir, "adapter_config.json"), []byte("{}"), 0o666),
		os.WriteFile(filepath.Join(dir, "adapter_model.safetensors"), []byte(text), 0o666)); err != nil {
		t.Fatal(err)
	}
}

func (s *shelf) post(path, body string) (int, string) {
	r := httptest.NewRequest("POST", path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// says is what a model answers; its error's status when it does not.
func (s *shelf) says(t *testing.T, model string) string {
	t.Helper()
	status, body := s.post("/v1/completions", `{"model":"`+model+`","prompt":"p"}`)
	if status != 200 {
		return fmt.Sprint(status)
	}
	var r openai.Response
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		t.Fatal(err)
	}
	return *r.Choices[0].Text
}

// load wants a status, and the generation after a 200 or the words after anything else.
func (s *shelf) load(t *testing.T, fields string, status int, says string) {
	t.Helper()
	got, body := s.post("/v1/load_lora_adapter", `{`+fields+`}`)
	if got != status || !strings.Contains(body, says) {
		t.Errorf("load %s: %d %s, want %d with %s", fields, got, body, status, says)
	}
}

func TestLoad(t *testing.T) {
	s := newShelf(t)
	s.write(t, "one", "first")
	s.write(t, "two", "second")
	s.write(t, "bad", "bad")
	s.write(t, "huge", "huge")
	s.load(t, `"lora_name":"a","lora_path":"one"`, 200, `"generation":1`)
	if got := s.says(t, "a") + " " + s.says(t, "m"); got != "first base" {
		t.Errorf("%q", got)
	}
	s.load(t, `"lora_name":"a","lora_path":"two"`, 400, "load_inplace")
	s.load(t, `"lora_name":"a","lora_path":"bad","load_inplace":true`, 400, "bad: not an adapter")
	s.load(t, `"lora_name":"a","lora_path":"huge","load_inplace":true`, 400, "no room")
	s.load(t, `"lora_name":"a","lora_path":"none","load_inplace":true`, 400, "adapter_config.json: no such file")
	s.load(t, `"lora_name":"a","lora_path":"two","load_inplace":true,"expected_generation":2`, 409, "the present one of \\\"a\\\" is 1")
	if got := s.says(t, "a"); got != "first" {
		t.Errorf("after loads that failed: %q", got)
	}
	s.load(t, `"lora_name":"a","lora_path":"`+filepath.Join(s.dir, "two")+`","load_inplace":true,"expected_generation":1`, 200, `"generation":2`)
	if got := s.says(t, "a"); got != "second" {
		t.Errorf("%q", got)
	}
	s.load(t, `"lora_name":"m","lora_path":"one","load_inplace":true`, 409, "no adapter")
	s.load(t, `"lora_name":"b","lora_path":"one","expected_generation":0`, 200, `"generation":1`)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("GET", "/v1/models", nil))
	var list struct {
		Data []struct {
			ID, Root string
			Parent   *string
			Max      int `json:"max_model_len"`
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list.Data) != 3 {
		t.Fatalf("%v: %s", err, w.Body)
	}
	if a, m := list.Data[0], list.Data[2]; a.ID != "a" || *a.Parent != "m" || a.Root != filepath.Join(s.dir, "two") || m.Parent != nil || m.Root != "models/m" || m.Max != context4096 {
		t.Errorf("%s", w.Body)
	}
	for _, c := range []struct {
		body   string
		status int
	}{{`{"lora_name":"a"}`, 200}, {`{"lora_name":"a"}`, 404}, {`{"lora_name":"m"}`, 400}, {`{}`, 400}, {`{"lora_name":7}`, 400}, {`{"lora_name":"b","x":1}`, 400}} {
		if status, body := s.post("/v1/unload_lora_adapter", c.body); status != c.status {
			t.Errorf("unload %s: %d %s", c.body, status, body)
		}
	}
	if got := s.says(t, "a") + " " + s.says(t, "b"); got != "404 first" {
		t.Errorf("%q", got)
	}
	s.load(t, `"lora_name":"a","lora_path":"one"`, 200, `"generation":3`) // a name's generations go on
}

// No path reaches what is outside the directory.
func TestTraversal(t *testing.T) {
	s := newShelf(t)
	outside := filepath.Join(filepath.Dir(s.dir), "outside")
	s.write(t, filepath.Join("..", "outside"), "secret")
	t.Cleanup(func() { os.RemoveAll(outside) })
	s.write(t, "in", "inside")
	if err := errors.Join(os.Symlink(outside, filepath.Join(s.dir, "link")), os.Symlink("in", filepath.Join(s.dir, "fine")),
		os.Mkdir(filepath.Join(s.dir, "odd"), 0o777), os.Mkdir(filepath.Join(s.dir, "odd", "adapter_config.json"), 0o777)); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		"../outside": "outside the directory", outside: "outside the directory", "in/../../outside": "outside the directory", "/": "outside the directory",
		"link": "adapter_config.json", "odd": "no regular file", "in\\u0000": "adapter_config.json", "": "empty",
	} {
		s.load(t, `"lora_name":"x","lora_path":"`+path+`"`, 400, says)
	}
	s.load(t, `"lora_name":"x\\n","lora_path":"in"`, 200, `"generation":1`)
	s.load(t, `"lora_name":"x\n","lora_path":"in"`, 400, "control characters")
	s.load(t, `"lora_name":"`+strings.Repeat("x", 300)+`","lora_path":"in"`, 400, "at most 256 bytes")
	s.load(t, `"lora_name":"x","lora_path":"fine"`, 200, `"generation":1`)
	s.Models.(*Catalog).Source.Root = nil
	s.load(t, `"lora_name":"y","lora_path":"in"`, 403, "--adapter-root")
	s.Models = openai.Completers{}
	s.load(t, `"lora_name":"y","lora_path":"in"`, 403, "not loaded and unloaded here")
}

// A file that changes while it is read loads nothing. (Whether it does is up to the machine: it is tried until it has.)
func TestChangedWhileRead(t *testing.T) {
	s := newShelf(t)
	s.write(t, "a", strings.Repeat("x", 4<<20))
	file := filepath.Join(s.dir, "a", "adapter_model.safetensors")
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		when, err := time.Unix(1e9, 0), error(nil)
		for ctx.Err() == nil && err == nil {
			when = when.Add(time.Second)
			err = os.Chtimes(file, when, when)
		}
		done <- err
	}()
	deadline := time.Now().Add(30 * time.Second)
	for i := 0; ; i++ {
		name := fmt.Sprint("x", i)
		status, body := s.post("/v1/load_lora_adapter", `{"lora_name":"`+name+`","lora_path":"a"}`)
		if status != 200 {
			if status != 400 || !strings.Contains(body, "changed while it was read") {
				t.Errorf("%d %s", status, body)
			}
			if got := s.says(t, name); got != "404" {
				t.Errorf("%q", got)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no change was seen")
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A call finishes on the adapter it began with, all its answers do, and the adapter's memory is given back then.
func TestSwapWhileServing(t *testing.T) {
	s := newShelf(t)
	first := strings.Repeat("first ", 50) // so long that the other comes in the middle of it
	s.write(t, "one", first)
	s.write(t, "two", "second")
	s.load(t, `"lora_name":"a","lora_path":"one"`, 200, "")
	s.wait = make(chan struct{})
	parts := make(chan string, 100)
	m, _ := s.Models.Find("a")
	go func() {
		defer close(parts)
		text := [2]string{}
		for p, err := range m.Answer(context.Background(), &openai.Call{Prompts: []openai.Prompt{{Text: "p"}}, N: 2, BestOf: 2, Limit: new(1000)}) {
			if err != nil {
				parts <- err.Error()
				return
			}
			text[p.Index] += p.Text
			if p.Done != nil {
				parts <- text[p.Index]
			}
		}
	}()
	s.wait <- struct{}{} // the first token of both
	loaded := make(chan bool)
	go func() {
		s.load(t, `"lora_name":"a","lora_path":"two","load_inplace":true`, 200, `"generation":2`)
		close(loaded)
	}()
	steps := make(chan bool)
	go func() {
		defer close(steps)
		for {
			select {
			case s.wait <- struct{}{}:
			case <-t.Context().Done():
				return
			case <-steps:
				return
			}
		}
	}()
	<-loaded
	if got := s.says(t, "a"); got != "second" {
		t.Errorf("a new call: %q", got)
	}
	var got []string
	for p := range parts {
		got = append(got, p)
	}
	if !slices.Equal(got, []string{first, first}) {
		t.Errorf("the call that had begun: %q", got)
	}
	select {
	case <-s.removed:
	case <-time.After(10 * time.Second):
		t.Error("the replaced adapter is not removed")
	}
	steps <- true
}
