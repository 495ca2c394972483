package reward

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The programs of these tests are this binary, run again with R2_REWARD_TEST saying which it is.
func TestMain(m *testing.M) {
	if mode := os.Getenv("R2_REWARD_TEST"); mode != "" {
		program(mode)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func program(mode string) {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<24)
	n := 0
	for ; mode != "deaf" && in.Scan(); n++ {
		var row struct{ Prompt, Completion, Answer string }
		if err := json.Unmarshal(in.Bytes(), &row); err != nil && mode != "echo" {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(9)
		}
		switch mode {
		case "right":
			reward := 0.0
			if row.Completion == row.Answer {
				reward = 1
			}
			fmt.Printf("{\"reward\": %g, \"why\": \"because\"}\n", reward)
		case "echo":
			fmt.Fprintln(os.Stderr, in.Text())
		case "some":
			if n%2 == 0 {
				fmt.Println(`{"reward": -0.25}`)
			} else {
				fmt.Println(`{"error": "no judge"}`)
			}
		case "nan":
			fmt.Println(`{"reward": NaN}`)
		case "null":
			fmt.Println(`{"reward": null}`)
		case "both":
			fmt.Println(`{"reward": 1, "error": "x"}`)
		case "bare":
			fmt.Println(`1`)
		case "huge":
			fmt.Println(`{"reward": 1e39}`)
		case "text":
			fmt.Println(`{"reward": "1"}`)
		case "two":
			fmt.Println("{\"reward\": 1}\n{\"reward\": 1}")
		case "gap":
			fmt.Print("{\"reward\": 1}\n\n")
		case "one", "crash":
			if n == 0 {
				fmt.Println(`{"reward": 1}`)
			}
		}
	}
	switch mode {
	case "echo":
		os.Exit(5)
	case "crash":
		fmt.Fprintln(os.Stderr, "first line\nthe judge is out")
		os.Exit(3)
	case "flood":
		for {
			if _, err := fmt.Println(strings.Repeat("x", 1000)); err != nil {
				os.Exit(1)
			}
		}
	case "slow":
		time.Sleep(time.Hour)
	}
}

// as is the command that runs this binary in a mode.
func as(t *testing.T, mode string) *Command {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("there is no shell: ", err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &Command{Line: "GORACE=atexit_sleep_ms=0 R2_REWARD_TEST=" + mode + " '" + exe + "'", Timeout: time.Minute}
}

func rows(completions ...string) (out []Row) {
	for _, c := range completions {
		out = append(out, Row{Prompt: "p", Completion: c, Fields: map[string]json.RawMessage{"answer": json.RawMessage(`"yes"`)}})
	}
	return out
}

func TestRewardsComeInOrder(t *testing.T) {
	got, _, err := as(t, "right").Score(t.Context(), rows("yes", "no\n\"quoted\" <&>\u2028", "yes"))
	if d := cmp.Diff([]Reward{{Value: 1}, {}, {Value: 1}}, got); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	if got, _, err := as(t, "crash").Score(t.Context(), nil); got != nil || err != nil {
		t.Errorf("no rows: %v, %v: the command need not run", got, err)
	}
}

func TestAFailedRewardIsNotAValue(t *testing.T) {
	got, _, err := as(t, "some").Score(t.Context(), rows("a", "b", "c"))
	if d := cmp.Diff([]Reward{{Value: -0.25}, {Failure: "no judge"}, {Value: -0.25}}, got); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
}

// 4 MB each way is far more than pipes hold.
func TestALargeBatchDoesNotJam(t *testing.T) {
	batch := rows(strings.Split(strings.Repeat(strings.Repeat("x", 1000)+",", 4000), ",")...)
	got, _, err := as(t, "right").Score(t.Context(), batch)
	if err != nil || len(got) != 4001 {
		t.Errorf("%d rewards, %v", len(got), err)
	}
}

func TestFieldsOfTheRow(t *testing.T) {
	for want, r := range map[string]Row{
		`{"completion":"<c>","prompt":"p"}`: {Prompt: "p", Completion: "<c>"},
		`{"completion":"c","n":7,"prompt":["its own"]}`: {Prompt: "p", Completion: "c", Fields: map[string]json.RawMessage{
			"n": json.RawMessage("7"), "prompt": json.RawMessage(`["its own"]`), "completion": json.RawMessage(`"old"`)}},
	} {
		_, _, err := as(t, "echo").Score(t.Context(), []Row{r})
		if err == nil || !strings.HasSuffix(err.Error(), "exit status 5: "+want) {
			t.Errorf("%v, want the program to have read %s", err, want)
		}
	}
}

func TestWhateverElseHappensIsAnError(t *testing.T) {
	for mode, want := range map[string]string{
		"crash": "exit status 3: the judge is out",
		"nan":   `output line 1: "{\"reward\": NaN}": expected {"reward": NUMBER}`,
		"null":  `expected {"reward": NUMBER} or {"error": "why"}`,
		"both":  `expected {"reward": NUMBER} or {"error": "why"}`,
		"bare":  `expected {"reward": NUMBER}`,
		"text":  `expected {"reward": NUMBER} or {"error": "why"}, not string`,
		"huge":  "too large",
		"one":   "1 lines of output for 2 completions",
		"two":   "4 lines of output for 2 completions",
		"gap":   "3 lines of output for 2 completions",
		"none":  "0 lines of output for 2 completions",
		"deaf":  "0 lines of output for 2 completions",
		"flood": "bytes of output",
	} {
		got, _, err := as(t, mode).Score(t.Context(), rows("a", "b"))
		if err == nil || !strings.Contains(err.Error(), want) || got != nil {
			t.Errorf("%s: %v, error %v, want %q", mode, got, err, want)
		}
	}
	c := Command{Line: "no-such-program-here"}
	if _, _, err := c.Score(t.Context(), rows("a")); err == nil || !strings.Contains(err.Error(), "exit status 127") {
		t.Errorf("a command that is not there: %v", err)
	}
}

func TestTimeoutEndsEverythingTheCommandStarted(t *testing.T) {
	c := as(t, "slow")
	c.Line += " & echo $! >&2; wait" // a child of the shell
	c.Timeout = 2 * time.Second
	began := time.Now()
	_, _, err := c.Score(t.Context(), rows("a"))
	if err == nil || !strings.Contains(err.Error(), "no answer within 2s: ") {
		t.Fatalf("error %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	pid, err := strconv.Atoi(err.Error()[strings.LastIndexByte(err.Error(), ' ')+1:])
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); alive(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d still runs", pid)
		}
	}
}

// alive reports whether a process runs; one that ended and waits to be collected does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

func TestCancelledByTheCaller(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	if _, _, err := as(t, "slow").Score(ctx, rows("a")); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("{\"reward\": 1}\n{\"error\": \"x\"}\n"), 2)
	f.Add([]byte("\n\n"), 1)
	f.Fuzz(func(t *testing.T, out []byte, n int) {
		if n < 0 || n > 100 {
			return
		}
		got, err := decode(out, n)
		if err != nil {
			return
		}
		if len(got) != n || strings.Count(strings.TrimRight(string(out), "\r\n"), "\n") != max(n-1, 0) {
			t.Errorf("%q gave %d rewards for %d", out, len(got), n)
		}
		for _, r := range got {
			if r.Value != r.Value || r.Value-r.Value != 0 || r.Failure != "" && r.Value != 0 {
				t.Errorf("%q gave %+v", out, r)
			}
		}
	})
}
