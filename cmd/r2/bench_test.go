package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/bench"
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
)

func TestBenchRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		cmd  benchCmd
		want string // in the message
	}{
		"nothing":     {benchCmd{What: "decode", Repeat: 1}, "--model or --shape"},
		"both":        {benchCmd{What: "decode", Model: "m", Shape: "smollm2-135m", Repeat: 1}, "--model or --shape"},
		"a shape":     {benchCmd{What: "decode", Shape: "gpt-5", Repeat: 1}, "qwen2.5-0.5b"},
		"no runs":     {benchCmd{What: "decode", Shape: "smollm2-135m"}, "--repeat"},
		"less than 0": {benchCmd{What: "decode", Shape: "smollm2-135m", Repeat: 1, Tokens: -1}, "--tokens"},
	} {
		c.cmd.Device = "auto"
		var u usageError
		if err := c.cmd.check(); !errors.As(err, &u) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want wrong usage with %q", name, err, c.want)
		}
	}
	good := benchCmd{What: "decode", Shape: "smollm2-135m", Repeat: 1, deviceFlags: deviceFlags{Device: "cpu"}}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	good.Device = "ref"
	if err := good.check(); err == nil || !strings.Contains(err.Error(), "--device ref") {
		t.Errorf("--device ref: %v", err)
	}
}

// Traffic that means nothing is wrong usage, and nothing is sent.
func TestBenchServeRefuses(t *testing.T) {
	good := benchServeCmd{URL: "http://127.0.0.1:1/v1", Name: "m", Requests: 1, Clients: 1, Prompt: 4, Tokens: 1}
	for name, spoil := range map[string]func(c *benchServeCmd){
		"nobody sends":           func(c *benchServeCmd) { c.Clients = 0 },
		"a prefix beyond prompt": func(c *benchServeCmd) { c.Prefix = 5 },
		"a rate below 0":         func(c *benchServeCmd) { c.Rate = -1 },
	} {
		c := good
		spoil(&c)
		var u usageError
		if err := c.Run(t.Context()); !errors.As(err, &u) {
			t.Errorf("%s: %v; want wrong usage", name, err)
		}
	}
	var u usageError
	if err := good.Run(t.Context()); err == nil || errors.As(err, &u) {
		t.Errorf("a port where nobody listens: %v", err)
	}
}

// Weights of 2^40 elements are more than any machine has free that runs this.
func TestBenchFits(t *testing.T) {
	c := bench.Shapes()["smollm2-135m"]
	cmd := benchCmd{Shape: "huge"}
	if err := cmd.fits(cpu.New(1), c, kernels.F32); err != nil {
		t.Errorf("half a gigabyte: %v", err)
	}
	c.Vocab, c.Hidden = 1<<20, 1<<20
	if err := cmd.fits(cpu.New(1), c, kernels.F32); err == nil || !strings.Contains(err.Error(), "GB are free") {
		t.Skipf("4 TB of weights: %v: the system does not say what is free", err)
	}
}

// Flags change the default load where they say something.
func TestBenchLoad(t *testing.T) {
	c := benchCmd{What: "group", Tokens: 7}
	if got, want := c.load(), (bench.Load{Prompt: 128, Tokens: 7, Samples: 16}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
