// Command gpu is what gpu.sh measures a GPU with, besides r2 itself and the tests: the machine's rates, what
// only hardware can answer, a random model to run, NVIDIA's library as a yardstick, and the table of it all.
// `make gpu` builds it; it runs where there is no Go. Results are lines of JSON, bench.Row's, added to a file.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/r2-reasoner/r2/bench"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

// options are the flags of every command.
type options struct {
	device string
	rows   string // the file that results are added to; "" for none
	shape  string
	cublas string
	seed   uint64
	sizes  string
	acts   string
}

var commands = map[string]struct {
	say string
	run func(o options, args []string) error
}{
	"device":   {"the device, its copy bandwidth and matrix rate", device},
	"width":    {"whether wgmma's bits depend on its number of columns", width},
	"wrappers": {"FILE: what each wrapper of gpu.h gives, kept in a file, beside the simulator", wrappers},
	"model":    {"DIR: write a random model of a shape, in shards", writeModel},
	"products": {"our matrix products beside cuBLAS, where that is", products},
	"overhead": {"a decode step's time beside the device's share of it", overhead},
	"works":    {"MODEL: what predicted.md predicts, measured, beside it", works},
	"predict":  {"BENCH: predict a 7B model on an H100 from what its kernels do on the simulator, into the folder bench", predicted},
	"reward":   {"a reward command for r2 grpo", reward},
	"table":    {"ROWS JSON: the results as a table, and as one JSON file", table},
}

func main() {
	var o options
	flag.StringVar(&o.device, "device", "cuda:0", "cuda:N or ptxsim")
	flag.StringVar(&o.rows, "rows", "", "the file that results are added to")
	flag.StringVar(&o.shape, "shape", "qwen2.5-7b", "of the model: tiny, or one of r2 bench's")
	flag.StringVar(&o.cublas, "cublas", "libcublas.so.12", "the path of cuBLAS")
	flag.Uint64Var(&o.seed, "seed", 1, "of random numbers")
	flag.StringVar(&o.acts, "activations", "f32", "of works: f32 or bf16")
	flag.StringVar(&o.sizes, "sizes", "4096,8192", "of square products")
	flag.Usage = func() {
		for name, c := range commands {
			fmt.Fprintf(os.Stderr, "gpu [flags] %s: %s\n", name, c.say)
		}
		flag.PrintDefaults()
	}
	flag.Parse()
	c, ok := commands[flag.Arg(0)]
	if !ok {
		flag.Usage()
		os.Exit(2)
	}
	if err := c.run(o, flag.Args()[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "gpu %s: %v\n", flag.Arg(0), err)
		os.Exit(1)
	}
}

// open opens the device.
func (o options) open() (driver.Device, error) {
	if o.simulated() {
		return ptxsim.New(ptxsim.Options{}), nil
	}
	n, err := strconv.Atoi(strings.TrimPrefix(strings.TrimPrefix(o.device, "cuda"), ":"))
	if o.device == "cuda" {
		n, err = 0, nil
	}
	if err != nil {
		return nil, fmt.Errorf("-device %s: want cuda, cuda:N or ptxsim", o.device)
	}
	return driver.Open(n)
}

func (o options) simulated() bool { return o.device == "ptxsim" }

// add adds results to the file, and shows them.
func (o options) add(rows ...bench.Row) error {
	for _, r := range rows {
		fmt.Printf("%-10s %-44s %12.4g %s\n", r.Bench, r.Case, r.Reached, r.Unit)
	}
	if o.rows == "" {
		return nil
	}
	f, err := os.OpenFile(o.rows, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := json.NewEncoder(f).Encode(r); err != nil {
			f.Close()
			return err
		}
	}
	return f.Close()
}

// only is the one argument of a command that takes one.
func only(args []string, what string) (string, error) {
	if len(args) != 1 {
		return "", fmt.Errorf("want one argument: %s", what)
	}
	return args[0], nil
}
