//go:build gpu

package main

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/kernels/cuda/driver/drivertest"
)

// What --device opens in a build that knows GPUs, with the imagined driver of two devices and without any.
func TestDevices(t *testing.T) {
	drivertest.Child(t, drivertest.FakeLibrary(t), "TestChildDevices", "FAKE_DEVICES=2")
	for flag, want := range map[string]string{"ptxsim": "cuda (simulated", "cpu": "cpu", "auto": ""} {
		be, err := deviceFlags{Device: flag}.open()
		if err != nil || !strings.Contains(be.Name(), want) {
			t.Errorf("--device %s is %v (%v)", flag, be, err)
		}
	}
	for flag, want := range map[string]string{"cuda:x": "want cuda:N", "gpu": "want auto, cpu, cuda, cuda:N, ptxsim or ref"} {
		if _, err := (deviceFlags{Device: flag}).open(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--device %s: %v, want %q", flag, err, want)
		}
	}
}

func TestChildDevices(t *testing.T) {
	drivertest.OnlyChild(t)
	for flag, want := range map[string]string{"auto": "cuda (Fake)", "cuda": "cuda (Fake)", "cuda:1": "cuda (Fake 1)"} {
		be, err := deviceFlags{Device: flag}.open()
		if err != nil || be.Name() != want {
			t.Errorf("--device %s is %v (%v), want %s", flag, be, err, want)
		}
	}
	_, err := deviceFlags{Device: "cuda:9"}.open()
	if want := "--device cuda:9: there is no such device: this machine has 2, numbered from 0; use --device cpu"; err == nil || err.Error() != want {
		t.Errorf("--device cuda:9: %v, want %s", err, want)
	}
}

// A shipped model says on the simulated GPU what it says on the processor, with matrices as stored and in blocks of bytes.
func TestSimulatedHost(t *testing.T) {
	for _, dtype := range []string{"auto", "int8"} {
		ids, lps := completed(t, "ptxsim", dtype)
		wantIDs, wantLPs := completed(t, "cpu", dtype)
		if !slices.Equal(ids, wantIDs) || len(ids) < 5 {
			t.Fatalf("%s: it says %v, the processor %v", dtype, ids, wantIDs)
		}
		for i := range lps {
			if d := math.Abs(float64(lps[i] - wantLPs[i])); !(d < 1e-4) {
				t.Errorf("%s: token %d's log-probability is %g, on the processor %g", dtype, i, lps[i], wantLPs[i])
			}
		}
	}
}

// completed is what the model says of a prompt, each id with its log-probability.
func completed(t *testing.T, device, dtype string) (ids []int32, lps []float32) {
	t.Helper()
	h, err := openHost(shipped("mini"), nil, deviceFlags{Device: device, DType: dtype, Acts: "f32"}, hostOptions{context: 64, sequences: 2, tokens: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for e, err := range h.eng.Generate(context.Background(), engine.Request{Prompt: []int32{1, 40, 41, 42, 2}, Samples: 1, Limit: 5, Sampling: sample.Params{}}) {
		if err != nil {
			t.Fatal(err)
		}
		ids, lps = append(ids, e.Token.ID), append(lps, e.Token.LogProb)
	}
	return ids, lps
}
