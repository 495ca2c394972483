package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A held is a stream under way that cannot end before it is read: it is longer than what a connection's buffers take.
type held struct {
	url    string
	stream *http.Response
	body   *bufio.Reader
	log    *bytes.Buffer
	server *os.Process
	ended  <-chan error
}

func hold(t *testing.T, args ...string) *held {
	t.Helper()
	h := &held{log: &bytes.Buffer{}}
	h.url, h.server, h.ended = launch(t, h.log, append([]string{"--model", shipped("mini")}, args...)...)
	t.Cleanup(func() { h.server.Kill() })
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			err = c.(*net.TCPConn).SetReadBuffer(1 << 16)
		}
		return c, err
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	resp, err := client.Post(h.url+"/completions", "application/json", strings.NewReader(
		`{"model":"mini","prompt":"<user>jump thrice<assistant>","n":64,"max_tokens":100,"ignore_eos":true,"temperature":1,"seed":1,"logprobs":20,"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	h.stream, h.body = resp, bufio.NewReader(resp.Body)
	if line, err := h.body.ReadString('\n'); err != nil || !strings.HasPrefix(line, "data: {") {
		t.Fatalf("%q, %v", line, err)
	}
	return h
}

// status is that of a path, and the body.
func (h *held) status(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(method, strings.TrimSuffix(h.url, "/v1")+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
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

// stop tells the server to, and waits until /ready says so.
func (h *held) stop(t *testing.T) {
	t.Helper()
	if status, body := h.status(t, "GET", "/ready", ""); status != 200 {
		t.Fatalf("/ready before: %d %s", status, body)
	}
	if err := h.server.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if status, body := h.status(t, "GET", "/ready", ""); status == 503 && strings.Contains(body, "stopping") {
			return
		} else if time.Now().After(end) {
			t.Fatalf("/ready: %d %s", status, body)
		}
	}
}

// rest reads the stream to its end: what ends each answer, and the last event.
func (h *held) rest(t *testing.T) (finished int, last string) {
	t.Helper()
	for {
		line, err := h.body.ReadString('\n')
		if err == io.EOF {
			return finished, last
		} else if err != nil {
			t.Fatal(err)
		}
		if data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: "); ok {
			last = data
			if strings.Contains(data, `"finish_reason":"length"`) {
				finished++
			}
		}
	}
}

// exit waits for the server's end.
func (h *held) exit(t *testing.T, within time.Duration) error {
	t.Helper()
	select {
	case err := <-h.ended:
		return err
	case <-time.After(within):
		t.Fatalf("the server has not ended within %v", within)
		return nil
	}
}

// Told to stop, the server is not ready, takes nothing new, and lets a long stream come to its end.
func TestDrain(t *testing.T) {
	h := hold(t)
	h.stop(t)
	if status, body := h.status(t, "POST", "/v1/completions", `{"model":"mini","prompt":"<user>"}`); status != 503 || !strings.Contains(body, `"code":"stopping"`) {
		t.Errorf("a new call: %d %s", status, body)
	}
	if status, _ := h.status(t, "GET", "/health", ""); status != 200 {
		t.Errorf("/health: %d", status)
	}
	if finished, last := h.rest(t); finished != 64 || last != "[DONE]" {
		t.Errorf("%d of 64 answers came to their end, and the stream ended with %s", finished, last)
	}
	if err := h.exit(t, 10*time.Second); err != nil {
		t.Errorf("%v: %s", err, h.log)
	}
}

// What takes longer than it has is told why it ends, and that is no failure of the server.
func TestDrainEnds(t *testing.T) {
	h := hold(t, "--drain", "200ms")
	h.stop(t)
	time.Sleep(400 * time.Millisecond)
	_, last := h.rest(t)
	var e struct{ Error struct{ Code string } }
	if json.Unmarshal([]byte(last), &e) != nil || e.Error.Code != "stopping" {
		t.Errorf("the stream ended with %s", last)
	}
	if err := h.exit(t, 10*time.Second); err != nil {
		t.Errorf("%v: %s", err, h.log)
	}
}

// Told twice, it ends at once.
func TestStopTwice(t *testing.T) {
	h := hold(t)
	h.stop(t)
	if err := h.server.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var ended *exec.ExitError
	if err := h.exit(t, 2*time.Second); !errors.As(err, &ended) || ended.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v, want by the signal", err)
	}
}
