package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"github.com/r2-reasoner/r2/bench"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
	"github.com/r2-reasoner/r2/kernels/cuda/probe"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

// device says what the device is and measures its two roofs.
func device(o options, _ []string) error {
	d, err := o.open()
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Bind(); err != nil {
		return err
	}
	v := map[driver.Attribute]int{}
	for _, a := range []driver.Attribute{driver.CapabilityMajor, driver.CapabilityMinor, driver.Multiprocessors, driver.Clock,
		driver.L2Size, driver.MaxSharedPerBlock} {
		if v[a], err = d.Attribute(a); err != nil {
			return err
		}
	}
	free, total, err := d.MemInfo()
	if err != nil {
		return err
	}
	fmt.Printf("%s: compute capability %d.%d, %d multiprocessors, %.2f GHz at most, %d MiB of second-level cache, %d KiB of shared memory a block, %.1f of %.1f GiB free\n",
		d.Name(), v[driver.CapabilityMajor], v[driver.CapabilityMinor], v[driver.Multiprocessors], float64(v[driver.Clock])*1e-6,
		v[driver.L2Size]>>20, v[driver.MaxSharedPerBlock]>>10, float64(free)/(1<<30), float64(total)/(1<<30))
	bytes, rounds := 1<<30, 1<<13
	if o.simulated() {
		bytes, rounds = 1<<20, 4
	}
	bandwidth, err := probe.Bandwidth(d, bytes)
	if err != nil {
		return err
	}
	rate, err := probe.Rate(d, rounds)
	if err != nil {
		return err
	}
	return o.add(bench.Row{Bench: "device", Case: "copy within the device, bytes read and written", Device: d.Name(), Unit: "GB/s", Reached: bandwidth * 1e-9},
		bench.Row{Bench: "device", Case: "mma.sync on bf16 in registers", Device: d.Name(), DType: "bf16", Unit: "TFLOP/s", Reached: rate * 1e-12})
}

// width is the question that one row, one answer rests on for kernels of wgmma.
func width(o options, _ []string) error {
	d, err := o.open()
	if err != nil {
		return err
	}
	defer d.Close()
	all, err := probe.Widths(d, o.seed)
	other, worst := 0, 0.0
	for _, w := range all {
		fmt.Printf("wgmma of %3d columns, tokens moved by %3d: %d of 512 numbers differ from those of 8 columns, error %.1e\n", w.N, w.Moved, w.Other, w.Error)
		other, worst = other+w.Other, max(worst, w.Error)
	}
	if err != nil {
		return err
	}
	if worst > 1e-5 {
		return fmt.Errorf("wgmma's product is off by %.1e of its terms: the probe itself is wrong", worst)
	}
	return o.add(bench.Row{Bench: "width", Case: "numbers of wgmma that depend on its columns", Device: d.Name(), Unit: "numbers", Reached: float64(other)})
}

// wrappers keeps what a device gives for each wrapper of gpu.h, and says where the simulator gives another.
func wrappers(o options, args []string) error {
	path, err := only(args, "the file to write")
	if err != nil {
		return err
	}
	d, err := o.open()
	if err != nil {
		return err
	}
	defer d.Close()
	records, err := probe.Run(d, o.seed, 2)
	if err != nil {
		return err
	}
	if err := (probe.File{Device: d.Name(), Records: records}).Write(path); err != nil {
		return err
	}
	fmt.Printf("%d wrappers, kept in %s\n", len(records), path)
	if err := probe.Again(ptxsim.New(ptxsim.Options{}), records); err != nil {
		return fmt.Errorf("the simulator differs from %s:\n%w", d.Name(), err)
	}
	fmt.Println("the simulator gives the same bits")
	return nil
}

// reward answers r2 grpo's rollouts: the share of even bytes of a completion, so that groups differ.
func reward(options, []string) error {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var row struct {
			Completion string `json:"completion"`
		}
		if err := json.Unmarshal(in.Bytes(), &row); err != nil {
			return err
		}
		even := 0
		for _, b := range []byte(row.Completion) {
			even += int(b+1) % 2
		}
		fmt.Printf("{\"reward\": %g}\n", float64(even)/float64(max(1, len(row.Completion))))
	}
	return in.Err()
}
