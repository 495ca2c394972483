package replay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/r2-reasoner/r2/router"
)

// A counter answers with how often it was asked.
type counter struct {
	n   atomic.Int64
	err error
}

func (c *counter) Complete(_ context.Context, r router.Request) (router.Completion, error) {
	n := c.n.Add(1)
	return router.Completion{
		Text: fmt.Sprintf("%s %d", r.Messages[0].Content, n), LogProbs: []float32{-0.1, -1e-9}, Pieces: []string{"\xe2\x82", "\xac"},
		In: 3, Out: 2, Finish: router.FinishStop, Cost: 35, Attempts: 2,
	}, c.err
}

func ask(text string) router.Request {
	return router.Request{Messages: []router.Message{{Role: "user", Content: text}}, Temperature: new(0.7), Seed: new(uint64(5))}
}

func open(t *testing.T, path string, m Mode) *Journal {
	t.Helper()
	j, err := Open(path, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// What was recorded is given again, to the byte, by another process, without asking.
func TestRecordAndReplay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a journal?.db")
	c := &counter{}
	j := open(t, path, Off)
	first, err := j.Completer("m", c).Complete(t.Context(), ask("x"))
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := j.Completer("m", c).Complete(t.Context(), ask("x")); again.Text != "x 2" {
		t.Errorf("off: %q, want the model asked again", again.Text)
	}
	j.Close()

	for _, mode := range []Mode{Only, Fill} {
		got, err := open(t, path, mode).Completer("m", c).Complete(t.Context(), ask("x"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, got); diff != "" {
			t.Errorf("%s (-recorded +given):\n%s", mode, diff)
		}
	}
	if n := c.n.Load(); n != 2 {
		t.Errorf("the model was asked %d times, want 2", n)
	}
}

func TestOnlyNeverAsks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j.db")
	if _, err := Open(path, Only); err == nil {
		t.Error("a journal that is not there: no error")
	}
	open(t, path, Fill).Close()
	c := &counter{}
	_, err := open(t, path, Only).Completer("m", c).Complete(t.Context(), ask("x"))
	if !errors.Is(err, router.ErrRefused) || c.n.Load() != 0 || !strings.Contains(err.Error(), "no answer of m") {
		t.Errorf("%v after %d calls", err, c.n.Load())
	}
}

func TestFillAsksOnce(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j.db"), Fill)
	c := &counter{err: router.ErrBusy}
	m := j.Completer("m", c)
	if _, err := m.Complete(t.Context(), ask("x")); !errors.Is(err, router.ErrBusy) {
		t.Fatal(err)
	}
	c.err = nil // a failure is in the journal, and not given again
	for range 3 {
		if got, err := m.Complete(t.Context(), ask("x")); err != nil || got.Text != "x 2" {
			t.Errorf("%q, %v", got.Text, err)
		}
	}
	if n, err := j.Len(t.Context()); n != 2 || err != nil {
		t.Errorf("%d exchanges, %v; want the failure and the answer", n, err)
	}
}

// The same request from many at once has one answer.
func TestConcurrentRequestsAgree(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j.db"), Fill)
	m := j.Completer("m", &counter{})
	var wg sync.WaitGroup
	texts := make([]string, 20)
	for i := range texts {
		wg.Go(func() {
			c, err := m.Complete(t.Context(), ask(fmt.Sprint(i%4)))
			if err != nil {
				t.Error(err)
			}
			texts[i] = c.Text
		})
	}
	wg.Wait()
	for i, s := range texts {
		if s != texts[i%4] {
			t.Errorf("request %d was answered %q and %q", i%4, s, texts[i%4])
		}
	}
}

// Requests that differ in anything have different keys.
func TestKeys(t *testing.T) {
	change := []func(*router.Request){
		func(r *router.Request) { r.Messages[0].Content += "!" }, func(r *router.Request) { r.Messages[0].Role = "system" },
		func(r *router.Request) { r.Prompt = "p" }, func(r *router.Request) { r.Limit = 1 },
		func(r *router.Request) { r.Temperature = new(0.0) }, func(r *router.Request) { r.Temperature = nil },
		func(r *router.Request) { r.TopP = new(1.0) }, func(r *router.Request) { r.TopK = new(0) }, func(r *router.Request) { r.MinP = new(0.0) },
		func(r *router.Request) { r.Seed = new(uint64(0)) }, func(r *router.Request) { r.Seed = nil },
		func(r *router.Request) { r.Stop = []string{"a"} }, func(r *router.Request) { r.Stop = []string{"a", "b"} },
		func(r *router.Request) { r.Choices = []string{"a"} }, func(r *router.Request) { r.LogProbs = true }, func(r *router.Request) { r.IgnoreEOS = true },
	}
	seen := map[string]int{}
	for i, f := range append(change, func(*router.Request) {}) {
		r := ask("x")
		f(&r)
		_, key, err := keyOf("m", r)
		if err != nil {
			t.Fatal(err)
		}
		if j, ok := seen[string(key)]; ok {
			t.Errorf("changes %d and %d have the same key", i, j)
		}
		seen[string(key)] = i
	}
	_, other, _ := keyOf("m2", ask("x"))
	if _, ok := seen[string(other)]; ok {
		t.Error("another model has the same key")
	}
	if _, _, err := keyOf("m", ask("\xff")); !errors.Is(err, router.ErrRefused) {
		t.Errorf("text that is not UTF-8: %v", err)
	}
}

type cards struct {
	router.Pool
	c *counter
}

func (p cards) Complete(ctx context.Context, _ string, r router.Request) (router.Completion, error) {
	return p.c.Complete(ctx, r)
}

func TestPoolKeepsModelsApart(t *testing.T) {
	c := &counter{}
	p := open(t, filepath.Join(t.TempDir(), "j.db"), Fill).Pool(cards{c: c})
	a, _ := p.Complete(t.Context(), "a", ask("x"))
	b, _ := p.Complete(t.Context(), "b", ask("x"))
	a2, err := p.Complete(t.Context(), "a", ask("x"))
	if err != nil || a.Text != "x 1" || b.Text != "x 2" || a2.Text != a.Text || a2.Cost != 35 || a2.Attempts != 2 {
		t.Errorf("%+v, %+v, %+v, %v", a, b, a2, err)
	}
}

// Against a map: what the first good answer was is the answer for ever.
func TestFillAgainstMap(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j.db"), Fill)
	want := map[string]string{}
	c := &counter{}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom([]string{"a", "b", "é", "'; DROP TABLE exchanges; --", ""}).Draw(t, "text")
		c.err = nil
		if rapid.IntRange(0, 3).Draw(t, "fails") == 0 {
			c.err = router.ErrBusy
		}
		got, err := j.Completer("m", c).Complete(t.Context(), ask(text))
		if w, ok := want[text]; ok && (err != nil || got.Text != w) {
			t.Fatalf("%q was %q, is %q, %v", text, w, got.Text, err)
		}
		if err == nil {
			want[text] = got.Text
		}
	})
}

func TestNotAJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte(strings.Repeat("this is no database. ", 100)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, m := range []Mode{Off, Only} {
		if _, err := Open(path, m); err == nil || !strings.Contains(err.Error(), "not a journal") {
			t.Errorf("%s: %v", m, err)
		}
	}
	if _, err := Open(path, "sometimes"); err == nil {
		t.Error("an unknown mode is not refused")
	}
	var m Mode
	if m.UnmarshalText([]byte("fill")) != nil || m != Fill || m.UnmarshalText([]byte("x")) == nil {
		t.Error("modes as text")
	}
}

// A kill at any instant loses nothing that was answered.
func TestKill(t *testing.T) {
	if path := os.Getenv("R2_TEST_JOURNAL"); path != "" {
		m := open(t, path, Fill).Completer("m", &counter{})
		for i := 0; ; i++ {
			if _, err := m.Complete(t.Context(), ask(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
			fmt.Println("answered", i)
		}
	}
	path := filepath.Join(t.TempDir(), "j.db")
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKill$")
	cmd.Env = append(os.Environ(), "R2_TEST_JOURNAL="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	answered := -1
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Sscanf(lines.Text(), "answered %d", &answered)
		if answered == 50 {
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	if answered < 50 {
		t.Fatalf("the other process answered only %d", answered)
	}
	c := &counter{}
	m := open(t, path, Only).Completer("m", c)
	for i := range answered + 1 {
		if got, err := m.Complete(t.Context(), ask(fmt.Sprint(i))); err != nil || got.Text != fmt.Sprintf("%d %d", i, i+1) {
			t.Fatalf("exchange %d of %d: %q, %v", i, answered, got.Text, err)
		}
	}
}
