//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sftArgs is a run of 12 steps with a checkpoint after each third.
func sftArgs(t *testing.T, more ...string) []string {
	return append([]string{"sft", "--model", shipped("midi"), "--data", trainingRows(t), "--lora", "r=4,alpha=8", "--steps", "12", "--batch", "4",
		"--lr", "1e-3", "--save-every", "3", "-q"}, more...)
}

// A checkpoint that was damaged is passed over and said so; the run ends as if it had not been.
func TestDamagedCheckpoint(t *testing.T) {
	whole, hurt := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "hurt")
	args := sftArgs(t, "--keep", "2")
	for _, dir := range []string{whole, hurt} {
		if _, errs, code := r2(t, "", append(args, "--out", dir)...); code != 0 {
			t.Fatal(errs)
		}
	}
	edit(t, filepath.Join(hurt, "checkpoints", "12", "optimizer.safetensors"), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	if err := os.RemoveAll(filepath.Join(hurt, "adapter")); err != nil {
		t.Fatal(err)
	}
	quiet := append(args, "--out", hurt)
	_, errs, code := r2(t, "", without(quiet, "-q")...)
	if code != 0 || !strings.Contains(errs, "checkpoints/12/optimizer.safetensors is damaged") || !strings.Contains(errs, "going on from step 9") {
		t.Errorf("exit %d: %s", code, errs)
	}
	compareRuns(t, whole, hurt)
	edit(t, filepath.Join(hurt, "checkpoints", "12", "state.json"), func([]byte) []byte { return nil })
	_, errs, code = r2(t, "", quiet...)
	if code != 0 || !strings.Contains(errs, "checkpoints/12") || strings.Count(errs, "\n") != 1 {
		t.Errorf("quiet: exit %d: %s", code, errs)
	}
	compareRuns(t, whole, hurt)
}

// The disk being full at any moment loses nothing: with room, the same command ends with the same bytes.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("no file system of a fixed size can be made here: %v", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	grpo := []string{"grpo", "--model", shipped("midi"), "--task", "scan", "--lora", "r=4,alpha=8", "--steps", "9", "--prompts", "3",
		"--samples", "4", "--max-tokens", "12", "--lr", "1e-3", "--save-every", "2", "-q"}
	for name, args := range map[string][]string{"sft": sftArgs(t), "grpo": grpo} {
		whole, full := filepath.Join(t.TempDir(), "whole"), filepath.Join(dir, name)
		if _, errs, code := r2(t, "", append(args, "--out", whole)...); code != 0 {
			t.Fatal(errs)
		}
		failed := 0
		for room := 8; ; room += 56 { // KiB left for the run
			fill(t, filepath.Join(dir, "ballast"), room<<10)
			_, errs, code := r2(t, "", append(args, "--out", full)...)
			if code == 0 {
				break
			}
			failed++
			if !strings.Contains(errs, "no space left") && !strings.Contains(errs, "disk is full") && !strings.Contains(errs, "disk I/O error") || strings.Contains(errs, "goroutine ") {
				t.Fatalf("%s with %d KiB: exit %d: %s", name, room, code, errs)
			}
			if room > 2048 {
				t.Fatalf("%s never ends: %s", name, errs)
			}
		}
		t.Logf("%s: %d times the disk was full", name, failed)
		if failed < 3 {
			t.Errorf("%s: the disk was full %d times only", name, failed)
		}
		compareRuns(t, whole, full)
		os.RemoveAll(full)
	}
}

// fill leaves so many bytes free on the file system of path.
func fill(t *testing.T, path string, free int) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(path), &st); err != nil {
		t.Fatal(err)
	}
	n := int(st.Bavail)*int(st.Bsize) - free
	if n <= 0 {
		return
	}
	if err := os.WriteFile(path, make([]byte, n), 0o666); err != nil {
		t.Fatal(err)
	}
}

// A directory that cannot be written is one line, before anything is computed.
func TestReadOnlyDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_RDONLY, "size=1m"); err != nil {
		t.Skipf("no read-only file system can be made here: %v", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	_, errs, code := r2(t, "", sftArgs(t, "--out", filepath.Join(dir, "run"))...)
	if code != 1 || !strings.Contains(errs, "read-only") || strings.Count(errs, "\n") != 1 {
		t.Errorf("exit %d: %s", code, errs)
	}
}

// Two runs do not share a directory; the lock of one that was killed is gone with it. An interrupted
// run ends its step, says how to go on, and does.
func TestLockAndInterrupt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	args := without(append(sftArgs(t, "--steps", "100000", "--save-every", "50000"), "--out", dir), "-q")
	start := func() (*exec.Cmd, *bytes.Buffer) {
		cmd, errs := exec.Command(binary, args...), &bytes.Buffer{}
		cmd.Stderr = errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			if rows, _ := (&runDir{path: dir}).rows(); len(rows) > 3 {
				return cmd, errs
			}
			if time.Now().After(deadline) {
				cmd.Process.Kill()
				t.Fatal("no step in 30 s: ", errs)
			}
		}
	}
	first, _ := start()
	_, errs, code := r2(t, "", args...)
	if code != 1 || !strings.Contains(errs, "another process is training in this directory") || strings.Count(errs, "\n") != 1 {
		t.Errorf("exit %d: %s", code, errs)
	}
	first.Process.Kill()
	first.Wait()
	if err := os.Remove(filepath.Join(dir, "metrics.jsonl")); err != nil {
		t.Fatal(err)
	}
	second, said := start()
	second.Process.Signal(os.Interrupt)
	second.Wait()
	rows, err := (&runDir{path: dir}).rows()
	if err != nil || len(rows) == 0 {
		t.Fatal(rows, err)
	}
	step := int(rows[len(rows)-1].values["step"])
	if code := second.ProcessState.ExitCode(); code != 130 || !strings.Contains(said.String(), fmt.Sprintf("stopped after step %d; the same command goes on from there", step)) {
		t.Errorf("exit %d: %s", code, said)
	}
	if _, err := os.Stat(filepath.Join(dir, "checkpoints", fmt.Sprint(step), "state.json")); err != nil {
		t.Error(err)
	}
}

func without(args []string, flag string) (out []string) {
	for _, a := range args {
		if a != flag {
			out = append(out, a)
		}
	}
	return out
}

// The memory of a run is said before its first step, and refused when it is not there.
func TestMemoryPlan(t *testing.T) {
	data := writeRows(t, `{"prompt":"walk","completion":" I_WALK","answer":"I_WALK"}`)
	for _, args := range [][]string{{"sft", "--model", shipped("mini"), "--data", data},
		{"grpo", "--model", shipped("mini"), "--data", data, "--task", "scan", "--prompts", "1", "--samples", "2", "--max-tokens", "4"},
		{"grpo", "--module", "allocator", "--config", shipped("r2.yaml"), "--task", "scan", "--prompts", "1", "--samples", "2"}} {
		args = append(args, "--steps", "1", "--out", filepath.Join(t.TempDir(), "run"))
		_, errs, code := r2(t, "", append(args, "--micro-tokens", "2000000000")...)
		if code != 1 || !strings.Contains(errs, "training needs") || !strings.Contains(errs, "--micro-tokens") || strings.Count(errs, "\n") != 1 {
			t.Errorf("exit %d: %s", code, errs)
		}
		if _, errs, code = r2(t, "", args...); code != 0 || !strings.Contains(errs, "memory: gradients ") {
			t.Errorf("exit %d: %s", code, errs)
		}
	}
}
