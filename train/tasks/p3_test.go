package tasks

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/r2-reasoner/r2/model/modeltest"
)

func needPython(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("there is no python3")
	}
}

// The reference solutions of the puzzles are right, and for other puzzles they are not.
func TestP3AgainstItsSolutions(t *testing.T) {
	needPython(t)
	path := filepath.Join(modeltest.Shared(t, "data", "p3"), "puzzles.json")
	all := published(t, "p3", 1715, path)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Header string   `json:"sol_header"`
		Bodies []string `json:"sol_bodies"`
	}
	if err := json.Unmarshal(b, &rows); err != nil {
		t.Fatal(err)
	}
	tried := 0
	for i := 0; i < len(rows) && tried < 12; i += 25 {
		if len(rows[i].Bodies) == 0 {
			continue
		}
		tried++
		sol := "```python\n" + rows[i].Header + "\n" + rows[i].Bodies[0] + "\n```"
		if ok, err := RunP3(t.Context(), sol, all[i].Answer); !ok || err != nil {
			t.Errorf("%s: its own solution: %v, %v", all[i].ID, ok, err)
		}
	}
	if tried < 12 {
		t.Errorf("only %d puzzles tried", tried)
	}
}

func TestP3KeepsAnswersApart(t *testing.T) {
	needPython(t)
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listen.Close()
	port := listen.Addr().String()[len("127.0.0.1:"):]
	here := filepath.Join(t.TempDir(), "written")
	const sat = "def sat(x: int):\n    return x == 3"
	for name, c := range map[string]struct {
		answer string
		right  bool
	}{
		"right":              {"def sol():\n    return 3", true},
		"wrong":              {"def sol():\n    return 4", false},
		"no function":        {"x = 3", false},
		"no Python":          {"I think that it is 3.", false},
		"empty":              {"", false},
		"for ever":           {"def sol():\n    while True: pass", false},
		"too much memory":    {"def sol():\n    x = [0] * 10**9\n    return 3", false},
		"says it is right":   {"import os\nos.write(1, b'right\\n')\nos._exit(0)", false},
		"always equal":       {"class E(int):\n    def __eq__(s, o): return True\n    def __repr__(s): return '4'\ndef sol(): return E()", false},
		"rewrites the judge": {"import __main__\n__main__.check = lambda: 'yes'\ndef sol():\n    return 4", false},
		"writes a file":      {"def sol():\n    with open(" + string(mustJSON(here)) + ", 'w') as f: f.write('x')\n    return 3", false},
		"raises":             {"def sol():\n    raise ValueError", false},
	} {
		begin := time.Now()
		got, err := RunP3(t.Context(), c.answer, sat)
		if got != c.right || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if d := time.Since(begin); d > (p3Seconds+4)*time.Second {
			t.Errorf("%s took %v", name, d)
		}
	}
	if b, _ := os.ReadFile(here); len(b) > 0 {
		t.Errorf("a file outside holds %q", b)
	}
	if err := exec.Command("unshare", "-rn", "true").Run(); err != nil {
		t.Skip("a network cannot be taken away here")
	}
	call := "import socket\ndef sol():\n    socket.create_connection(('127.0.0.1', " + port + "), 2)\n    return 3"
	if got, err := RunP3(t.Context(), call, sat); got || err != nil {
		t.Errorf("an answer that reaches the network: %v, %v", got, err)
	}
}

func mustJSON(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return b
}

// What could not be run has no verdict.
func TestP3WithoutPython(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if ok, err := RunP3(t.Context(), "", ""); ok || err == nil || !strings.Contains(err.Error(), "there is no python3") {
		t.Errorf("%v, %v", ok, err)
	}
}

func TestProgram(t *testing.T) {
	for answer, want := range map[string]string{
		"x":                                "x",
		"Here:\n```python\nx\n```\nThere.": "x\n",
		"```\nx\n```":                      "x\n",
		"```\na\n``` or ```python\nb\n```": "b\n",
		"```python\nx":                     "x",
	} {
		if got := program(answer); got != want {
			t.Errorf("%q: %q, want %q", answer, got, want)
		}
	}
}
