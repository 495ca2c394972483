// Command gen compiles the kernels: every .cu of a folder to the .ptx beside it, by NVRTC. With -check it
// writes nothing and fails when a .ptx is not what its source compiles to, when a shipped kernel spills, or when its
// machine code has not what its PTX has: products of warpgroups, tiles by tensor maps, registers taken and given.
// With -report it says what registers and shared memory each kernel takes, and which instructions it has.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/r2-reasoner/r2/kernels/cuda/ptx"
)

// architecture is what a source is compiled for: the oldest that has what it uses, bf16 matrix products and
// asynchronous copies, or Hopper's own instructions.
func architecture(name string) string {
	if ptx.Hopper(strings.TrimSuffix(name, ".cu")) {
		return "compute_90a"
	}
	return "compute_80"
}

// machines are those whose machine code is looked at.
func machines(name string) []string {
	if ptx.Hopper(strings.TrimSuffix(name, ".cu")) {
		return []string{"sm_90a"}
	}
	return []string{"sm_80", "sm_90"}
}

// headersOf reads what a source includes.
func headersOf(dir, name string) (all headers, err error) {
	for _, h := range ptx.Headers(strings.TrimSuffix(name, ".cu")) {
		text, err := read(dir, h)
		if err != nil {
			return all, err
		}
		all.names, all.texts = append(all.names, h), append(all.texts, text)
	}
	return all, nil
}

func main() {
	dir := flag.String("dir", ".", "the folder of the sources")
	lib := flag.String("nvrtc", os.Getenv("R2_NVRTC"), "the path of libnvrtc.so.12")
	cache := flag.String("cache", ".cache/nvrtc", "where make nvrtc puts it")
	check := flag.Bool("check", false, "compare, and write nothing")
	report := flag.Bool("report", false, "print what each kernel takes")
	one := flag.String("one", "", "print the PTX of this source, and do no more")
	flag.Parse()
	c, err := open(*lib, *cache)
	switch {
	case err != nil:
	case *one != "":
		err = c.print(*dir, *one)
	default:
		err = c.run(*dir, *check, *report)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// print writes a source's PTX to stdout.
func (c *compiler) print(dir, name string) error {
	header, err := headersOf(dir, name)
	if err != nil {
		return err
	}
	src, err := read(dir, name)
	if err != nil {
		return err
	}
	raw, err := c.build(name, src, header, architecture(name), toPTX)
	if err != nil {
		return err
	}
	_, err = fmt.Print(ptx.Stamp(strings.Join(header.texts, "\x00"), src) + strings.TrimRight(string(raw), "\x00"))
	return err
}

func (c *compiler) run(dir string, check, report bool) error {
	sources, err := filepath.Glob(filepath.Join(dir, "*.cu"))
	if err != nil {
		return err
	}
	var stale []string
	for _, path := range sources {
		name := filepath.Base(path)
		header, err := headersOf(dir, name)
		if err != nil {
			return err
		}
		src, err := read(dir, name)
		if err != nil {
			return err
		}
		target := strings.TrimSuffix(path, ".cu") + ".ptx"
		have, _ := os.ReadFile(target)
		same, text, err := rebuild(name, string(have))
		switch {
		case err != nil:
			return err
		case same:
		case check:
			stale = append(stale, filepath.Base(target))
		default:
			if err := os.WriteFile(target, []byte(text), 0o644); err != nil {
				return err
			}
		}
		if check || report {
			if err := c.resources(name, src, text, header, report); err != nil {
				return err
			}
		}
	}
	if len(stale) > 0 {
		return fmt.Errorf("stale: %s (`make ptx` writes them)", strings.Join(stale, ", "))
	}
	return nil
}

// attempts is how often a source is compiled before its PTX is called stale: of codes that do the same,
// NVRTC takes one or another by where its memory happens to lie, for large kernels. Hence, too, a process
// for each.
const (
	attempts    = 24
	newAttempts = 5 // of which the most frequent is taken, where there is nothing to compare with
)

// rebuild compiles a source and reports whether each part of have (the head, and every kernel) is what the
// compiler writes; if not, text is what it writes most often, so that the next check finds it soon.
func rebuild(name, have string) (same bool, text string, err error) {
	self, err := os.Executable()
	if err != nil {
		return false, "", err
	}
	left, times := map[string]bool{}, map[string]int{}
	for _, part := range parts(have) {
		left[part] = true
	}
	for i := range attempts {
		cmd := exec.Command(self, append(os.Args[1:], "-one", name)...)
		cmd.Stderr = os.Stderr
		raw, err := cmd.Output()
		if err != nil {
			return false, "", fmt.Errorf("%s does not compile: %w", name, err)
		}
		last := string(raw)
		if times[last]++; times[last] > times[text] {
			text = last
		}
		now := parts(last)
		if len(now) != len(parts(have)) || now[0] != parts(have)[0] { // other kernels, or made of other sources
			if i+1 < newAttempts {
				continue
			}
			return false, text, nil
		}
		for _, part := range now {
			delete(left, part)
		}
		if len(left) == 0 {
			return true, have, nil
		}
	}
	return false, text, nil
}

// parts cuts a PTX text before each kernel.
func parts(text string) []string {
	const start = "\n.visible .entry"
	return strings.Split(text, start)
}

// resources reads what the kernels of a source take, and their instructions, from their machine code, and fails when one
// spills or has not what its PTX has.
func (c *compiler) resources(name, src, text string, header headers, report bool) error {
	for _, m := range machines(name) {
		bin, err := c.build(name, src, header, m, toCubin)
		if err != nil {
			return err
		}
		all, err := usages(bin)
		if err != nil {
			return fmt.Errorf("%s for %s: %w", name, m, err)
		}
		for _, u := range all {
			if report {
				fmt.Printf("%-18s %-28s %s  %v\n", name, u.kernel, m, u)
			}
			if why := u.missing(bodyOf(text, u.kernel)); why != "" {
				return fmt.Errorf("%s: on %s %s %s", name, m, u.kernel, why)
			}
		}
	}
	return nil
}
