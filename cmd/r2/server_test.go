package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
