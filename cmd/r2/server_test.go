package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/openai"
)

// Without keys only loopback is served, unless that is said.
func TestListen(t *testing.T) {
	t.Setenv(keysVariable, "")
	os.Unsetenv(keysVariable)
	for _, c := range []struct {
		flags serverFlags
		keys  bool
		ok    bool
	}{
		{serverFlags{Listen: "127.0.0.1:0"}, false, true}, {serverFlags{Listen: "localhost:0"}, false, true}, {serverFlags{Listen: "[::1]:0"}, true, true},
		{serverFlags{Listen: "0.0.0.0:0"}, false, false}, {serverFlags{Listen: ":0"}, false, false}, {serverFlags{Listen: "example.org:0"}, false, false},
		{serverFlags{Listen: "0.0.0.0:0"}, true, true}, {serverFlags{Listen: "0.0.0.0:0", Insecure: true}, false, true}, {serverFlags{Listen: "here"}, true, false},
	} {
		c.flags.Queue = 1
		l, err := c.flags.listen(c.keys)
		if err == nil {
			l.Close()
		} else if c.ok && strings.Contains(c.flags.Listen, "::1") {
			continue // a machine without IPv6
		}
		if (err == nil) != c.ok {
			t.Errorf("%+v with keys %v: %v", c.flags, c.keys, err)
		}
	}
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte("# mine\nsk-0123456789\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		file, env string
		n         int
		ok        bool
	}{{file, "", 1, true}, {"", "sk-aaaaaaaa,sk-bbbbbbbb", 2, true}, {file + "x", "", 0, false}, {"", "short", 0, false}, {os.DevNull, "", 0, false}} {
		os.Unsetenv(keysVariable)
		if c.env != "" {
			os.Setenv(keysVariable, c.env)
		}
		keys, err := (&serverFlags{APIKeys: c.file}).keys()
		if len(keys) != c.n || (err == nil) != c.ok {
			t.Errorf("%+v: %d keys, %v", c, len(keys), err)
		}
	}
}

// A served model wants its key, and what it logs has neither the key nor the question.
func TestServeWithKeys(t *testing.T) {
	const key = "sk-0123456789"
	t.Setenv(keysVariable, key)
	said := &bytes.Buffer{}
	url, stop := startInto(t, said, "--model", shipped("mini"))
	ask := func(key string) (int, string) {
		r, err := http.NewRequest("POST", url+"/chat/completions", strings.NewReader(`{"model":"mini","messages":[{"role":"user","content":"jump thrice"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		if key != "" {
			r.Header.Set("Authorization", "Bearer "+key)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	for _, wrong := range []string{"", "sk-0123456788"} {
		if status, body := ask(wrong); status != 401 {
			t.Errorf("key %q: %d %s", wrong, status, body)
		}
	}
	if status, body := ask(key); status != 200 || !strings.Contains(body, "I_JUMP I_JUMP I_JUMP") {
		t.Errorf("%d %s", status, body)
	}
	stop()
	log := said.String()
	if n := strings.Count(log, `"msg":"request"`); n != 3 || !strings.Contains(log, `"completion_tokens":4`) {
		t.Errorf("%d lines of log: %s", n, log)
	}
	for _, secret := range []string{key, "0123456788", "thrice", "I_JUMP"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log has %q in it: %s", secret, log)
		}
	}
}

// What is asked and answered is logged when that is wanted, whole and streamed, chats and prompts; keys are not.
func TestLogPrompts(t *testing.T) {
	const key = "sk-0123456789"
	t.Setenv(keysVariable, key)
	said, seen := &bytes.Buffer{}, [2]string{} // by the client, of the prompts' answers
	url, stop := startInto(t, said, "--model", shipped("mini"), "--log-prompts")
	for path, body := range map[string]string{
		"/chat/completions": `{"model":"mini","temperature":0,"messages":[{"role":"user","content":"jump thrice"}]}`,
		"/completions":      `{"model":"mini","temperature":0,"prompt":["<user>walk<assistant>","<user>run<assistant>"],"max_tokens":4,"stream":true}`,
	} {
		for _, k := range []string{key, "sk-0123456788"} {
			r, err := http.NewRequest("POST", url+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", "Bearer "+k)
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || (resp.StatusCode == 200) != (k == key) {
				t.Errorf("%d %s, %v", resp.StatusCode, b, err)
			}
			for event := range strings.SplitSeq(string(b), "\n\n") {
				var e openai.Response
				if data, ok := strings.CutPrefix(event, "data: {"); ok && json.Unmarshal([]byte("{"+data), &e) == nil && len(e.Choices) > 0 {
					seen[e.Choices[0].Index] += *e.Choices[0].Text
				}
			}
		}
	}
	stop()
	type line struct {
		Path     string
		Status   int
		Asked    json.RawMessage
		Answered []openai.Answered
	}
	log := map[string]line{}
	for text := range strings.Lines(said.String()) {
		var l line
		if json.Unmarshal([]byte(text), &l) != nil || l.Path == "" {
			continue
		}
		if l.Status == 200 {
			log[l.Path] = l
		} else if l.Asked != nil || l.Answered != nil {
			t.Errorf("one without a key had something logged: %s", text)
		}
	}
	chat, text := log["/v1/chat/completions"], log["/v1/completions"]
	if string(chat.Asked) != `[{"role":"user","content":"jump thrice"}]` || len(chat.Answered) != 1 || strings.TrimSpace(chat.Answered[0].Text) != "I_JUMP I_JUMP I_JUMP" {
		t.Errorf("of a chat: %s, %+v", chat.Asked, chat.Answered)
	}
	var prompts []string
	if json.Unmarshal(text.Asked, &prompts) != nil || !slices.Equal(prompts, []string{"<user>walk<assistant>", "<user>run<assistant>"}) {
		t.Errorf("of prompts: %s", text.Asked)
	}
	if len(text.Answered) != 2 || seen[0] == "" || text.Answered[0].Text != seen[0] || text.Answered[1].Text != seen[1] {
		t.Errorf("answers to prompts: %+v, the client saw %q", text.Answered, seen)
	}
	if strings.Contains(said.String(), "sk-012345678") {
		t.Errorf("a key is in the log: %s", said)
	}
}

// Thousands of connections that send nothing, or a header or a body a byte at a time, do not keep others from being
// answered, and are closed when their time is up.
func TestSlowClients(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	whole := router.CompleteFunc(func(context.Context, router.Request) (router.Completion, error) {
		return router.Completion{Text: "well", Finish: router.FinishStop}, nil
	})
	s := newServer(&openai.Handler{Models: openai.Completers{"m": whole}}, 2*time.Second, 3*time.Second, 3*time.Second)
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	defer func() {
		s.Close()
		<-failed
	}()
	beginnings := []string{"", "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow: ",
		"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"model\":"}
	var open []net.Conn
	for i := range 2000 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Logf("%d connections are what this machine gives", i)
			break
		}
		defer c.Close()
		if _, err := io.WriteString(c, beginnings[i%len(beginnings)]); err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	began := time.Now()
	r, err := http.Post("http://"+l.Addr().String()+"/v1/chat/completions", "application/json", strings.NewReader(`{"model":"m","messages":[{"role":"user","content":"?"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil || !strings.Contains(string(b), "well") {
		t.Errorf("%s, %v", b, err)
	}
	t.Logf("answered beside %d slow clients in %v", len(open), time.Since(began))
	for i, c := range open {
		c.SetReadDeadline(time.Now().Add(60 * time.Second))
		answer, err := io.ReadAll(c)
		if err != nil {
			t.Fatalf("connection %d is still open: %v", i, err)
		}
		if i%3 == 2 && !strings.Contains(string(answer), "408") {
			t.Fatalf("a body that does not come: %q", answer)
		}
	}
}
