package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/train"
	"github.com/r2-reasoner/r2/weights"
)

// optimizerFlags are those of sft and grpo.
type optimizerFlags struct {
	LR          float64 `name:"lr" default:"1e-4" help:"Peak learning rate."`
	Schedule    string  `default:"constant" enum:"constant,linear,cosine" help:"constant, linear or cosine."`
	Warmup      int     `default:"0" help:"Steps of warm-up."`
	WeightDecay float64 `default:"0" help:"AdamW's decoupled weight decay."`
	Betas       string  `default:"0.9,0.95" help:"AdamW's two moment decays."`
	Eps         float64 `default:"1e-8" help:"AdamW's epsilon."`
	Clip        float64 `default:"1" help:"Largest norm of all gradients together; 0 does not clip."`
	MicroTokens int     `default:"2048" help:"Tokens of a forward pass; it changes speed and memory, never the result."`
	SaveEvery   int     `default:"100" help:"Steps between checkpoints."`
	Keep        int     `default:"2" help:"Checkpoints to keep."`
}

func (f *optimizerFlags) settings() []setting {
	return []setting{{"lr", f.LR}, {"schedule", f.Schedule}, {"warmup", f.Warmup}, {"weight_decay", f.WeightDecay},
		{"betas", f.Betas}, {"eps", f.Eps}, {"clip", f.Clip}}
}

func (f *optimizerFlags) optimizer() (train.Optimizer, error) {
	var b [2]float64
	parts := strings.Split(f.Betas, ",")
	ok := len(parts) == 2
	for i := range min(2, len(parts)) {
		v, err := strconv.ParseFloat(strings.TrimSpace(parts[i]), 64)
		ok = ok && err == nil && v >= 0 && v < 1
		b[i] = v
	}
	switch {
	case !ok:
		return train.Optimizer{}, usage("--betas %s: want two numbers from 0 to below 1, such as 0.9,0.95", f.Betas)
	case !(f.Eps > 0):
		return train.Optimizer{}, usage("--eps %v must be above 0", f.Eps)
	case f.WeightDecay < 0 || f.Clip < 0:
		return train.Optimizer{}, usage("--weight-decay %v and --clip %v must not be negative", f.WeightDecay, f.Clip)
	case f.MicroTokens < 1 || f.SaveEvery < 1 || f.Keep < 1:
		return train.Optimizer{}, usage("--micro-tokens, --save-every and --keep must be at least 1")
	}
	return train.Optimizer{Beta1: float32(b[0]), Beta2: float32(b[1]), Eps: float32(f.Eps),
		Decay: float32(f.WeightDecay), Clip: float32(f.Clip)}, nil
}

func (f *optimizerFlags) schedule(steps int) (train.Schedule, error) {
	s := train.Schedule{Kind: f.Schedule, Peak: f.LR, Warmup: f.Warmup, Steps: steps}
	if err := s.Check(); err != nil {
		return s, usageError{err}
	}
	return s, nil
}

// parseLoRA reads r=16,alpha=32,targets=all,rslora=false. targets are module names joined by +.
func parseLoRA(s string) (cfg weights.AdapterConfig, err error) {
	cfg = weights.AdapterConfig{R: 16, Alpha: 32}
	cfg.Targets.Names = model.Modules()
	bad := func(part string) error {
		return usage("--lora %s: %q is not understood; want r=16,alpha=32,targets=all,rslora=false (targets: all, or modules joined by +)", s, part)
	}
	for _, part := range strings.Split(s, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch key {
		case "r":
			cfg.R, err = strconv.Atoi(value)
			if err != nil || cfg.R < 1 {
				return cfg, bad(part)
			}
		case "alpha":
			cfg.Alpha, err = strconv.ParseFloat(value, 64)
			if err != nil || !(cfg.Alpha > 0) {
				return cfg, bad(part)
			}
		case "rslora":
			cfg.RSLoRA, err = strconv.ParseBool(value)
			if err != nil {
				return cfg, bad(part)
			}
		case "targets":
			if value == "all" {
				continue
			}
			cfg.Targets.Names = strings.Split(value, "+")
			for _, m := range cfg.Targets.Names {
				if !slices.Contains(model.Modules(), m) {
					return cfg, bad(part)
				}
			}
		default:
			return cfg, bad(part)
		}
	}
	return cfg, nil
}

// hashFiles is the SHA-256 of the files' contents, one after another.
func hashFiles(paths []string) (string, error) {
	h := sha256.New()
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", fmt.Errorf("%s: %w", p, err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
