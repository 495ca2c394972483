package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/kernels/ref"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/weights"
)

// modelFlags are those of every command that takes a model.
type modelFlags struct {
	Model   string   `required:"" placeholder:"PATH" help:"A folder in the Hugging Face layout, or a .gguf file."`
	Adapter []string `placeholder:"NAME=DIR" sep:"none" help:"A LoRA adapter in PEFT's layout; may be repeated."`
	deviceFlags
}

// deviceFlags say where and how to compute.
type deviceFlags struct {
	Device string `default:"auto" env:"R2_DEVICE" placeholder:"auto" help:"auto (an NVIDIA GPU where there is one that this build can use, else the processor), cpu, cuda or cuda:N (a GPU by its number), ptxsim (a GPU in software, for tests) or ref (slow float64 oracle); or in R2_DEVICE."`
	DType  string `name:"dtype" default:"auto" placeholder:"auto" help:"Type of frozen matrices: auto (as stored), f32, bf16, int8, int4 (the last two in blocks of 32; GPUs have no int4)."`
	Acts   string `name:"activations" default:"auto" placeholder:"auto" help:"What rows are rounded to where they meet a frozen matrix: f32 (not at all), bf16 (with bf16 matrices, not on GPUs), int8 (with int8 and int4 ones), auto (f32, or int8 with --dtype int8 and int4). Where they are rounded, a processor keeps keys and values in bf16, half the memory."`
	Packed bool   `help:"Keep the matrices, packed for the processor, in a file beside the model, and map them from it at the next start."`
	Seed   uint64 `default:"0" help:"Fixes every random number."`
}

// outputFlags are those of every command that prints.
type outputFlags struct {
	JSON    bool `name:"json" help:"Print JSON to standard output."`
	Quiet   bool `short:"q" help:"No progress."`
	Verbose bool `short:"v" help:"Say more on standard error."`
}

// note tells people something on standard error.
func (o outputFlags) note(format string, args ...any) {
	if !o.Quiet {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}

// open opens the device.
func (f deviceFlags) open() (kernels.Backend, error) {
	switch name := f.Device; {
	case name == "auto":
		return openAuto()
	case name == "cpu":
		return cpu.New(0), nil
	case name == "ref":
		return ref.New(), nil
	case name == "cuda":
		return openGPU(0)
	case strings.HasPrefix(name, "cuda:"):
		n, err := strconv.ParseUint(name[len("cuda:"):], 10, 16)
		if err != nil {
			return nil, usage("--device %s: want cuda:N, N the number of a GPU from 0", name)
		}
		return openGPU(int(n))
	case name == "ptxsim":
		return openSimulator()
	}
	return nil, usage("--device %s: want auto, cpu, cuda, cuda:N, ptxsim or ref", f.Device)
}

// options are the loading options that --dtype and --activations stand for.
func (f deviceFlags) options() (model.Options, error) {
	var o model.Options
	switch f.DType {
	case "auto":
	case "f32":
		o.Convert, o.DType = true, weights.F32
	case "bf16":
		o.Convert, o.DType = true, weights.BF16
	case "int8":
		o.Convert, o.DType = true, weights.Q8_0
	case "int4":
		o.Convert, o.DType = true, weights.Q4_0
	default:
		return o, usage("--dtype %s: want auto, f32, bf16, int8 or int4", f.DType)
	}
	blocks := o.Convert && o.DType.Block() > 1
	switch f.Acts {
	case "auto":
		if blocks {
			o.Acts = kernels.I8
		}
	case "f32":
	case "bf16":
		o.Acts = kernels.BF16
		if o.Convert && o.DType != weights.BF16 {
			return o, usage("--activations bf16 go with --dtype bf16, not %s", f.DType)
		}
	case "int8":
		o.Acts = kernels.I8
		if o.Convert && !blocks {
			return o, usage("--activations int8 go with --dtype int8 or int4, not %s", f.DType)
		}
	default:
		return o, usage("--activations %s: want auto, f32, bf16 or int8", f.Acts)
	}
	return o, nil
}

// splitPair splits NAME=VALUE.
func splitPair(flag, s string) (name, value string, err error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok || name == "" || value == "" {
		return "", "", usage("--%s %s: want NAME=DIR", flag, s)
	}
	return name, value, nil
}
