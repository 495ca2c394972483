// Package ptx holds the GPU kernels: CUDA C++ sources, one an operation, and beside each the PTX that
// NVRTC 12.4 makes of it for sm_80 and later, or for sm_90a (see Hopper). The PTX is embedded, so that running needs a driver alone.
//
// A name that ends in _v1 is an operation's first and plainest version, which defines its bits; the others
// give the same. None has been timed: no GPU was at hand.
//
// `make ptx` compiles them, `make ptx-check` fails when one is stale or a kernel spills. The sources
// include nothing but gpu.h, which says the rules they keep, and the other headers beside it (see Headers).
package ptx

import (
	"crypto/sha256"
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

//go:embed *.ptx
var files embed.FS

// Probe is the module that no operation uses: see probe.cu.
const Probe = "probe"

// Modules are the names of the embedded files without their extension.
func Modules() []string {
	names, _ := fs.Glob(files, "*.ptx")
	for i, n := range names {
		names[i] = strings.TrimSuffix(n, ".ptx")
	}
	slices.Sort(names)
	return names
}

// Hopper reports whether a module is for compute capability 9.0 alone (sm_90a): its name ends in 90.
func Hopper(module string) bool { return strings.HasSuffix(module, "90") }

// Headers are the files that a module's source includes, by way of others or itself.
func Headers(module string) []string {
	names := []string{"gpu.h"}
	if Hopper(module) {
		names = append(names, "hopper.h")
	}
	switch module {
	case "linear90":
		names = append(names, "ending.h")
	case "lower":
		names = append(names, "split.h")
	case "gradient90":
		names = append(names, "turned.h")
	case "quant":
		names = append(names, "quant.h")
	case "quant90":
		names = append(names, "ending.h", "parts.h", "lanes.h", "quant.h")
	case "attention":
		names = append(names, "attention.h")
	case "attention90":
		names = append(names, "attention.h", "panels.h", "together.h")
	case "attentiongrad90":
		names = append(names, "attention.h", "panels.h", "sides.h")
	case "logits", "score", "head90":
		names = append(names, "dist.h")
	case "elementwise", "many":
		names = append(names, "adam.h")
	}
	return names
}

// Text is the PTX of a module.
func Text(module string) string {
	b, err := files.ReadFile(module + ".ptx")
	if err != nil {
		panic("ptx: there is no module " + module)
	}
	return string(b)
}

// Stamp is the first line of the PTX made of a source: it names what the PTX was made from.
func Stamp(header, source string) string {
	return fmt.Sprintf("// made of sha256 %x by `make ptx`; do not edit\n", sha256.Sum256([]byte(header+"\x00"+source)))
}

// An Entry is a kernel as its module declares it.
type Entry struct {
	Name   string
	Params string // a letter a parameter: P 64 bits (a pointer), I 32 bits (an integer), F a float32, M a tensor map, X the pairs of adapters
}

var (
	entry = regexp.MustCompile(`(?s)\.entry\s+(\w+)\s*\((.*?)\)`)
	param = regexp.MustCompile(`\.param\s+(?:\.align 64 )?\.(\w+)\s+\w+(\[\d+\])?`)
)

// Entries are the kernels of a PTX text, in its order.
func Entries(text string) ([]Entry, error) {
	var all []Entry
	for _, m := range entry.FindAllStringSubmatch(text, -1) {
		e := Entry{Name: m[1]}
		for _, p := range param.FindAllStringSubmatch(m[2], -1) {
			switch p[1] + p[2] {
			case "b8[128]":
				e.Params += "M"
			case "b8[384]":
				e.Params += "X"
			case "u64":
				e.Params += "P"
			case "u32", "s32":
				e.Params += "I"
			case "f32":
				e.Params += "F"
			default:
				return nil, fmt.Errorf("ptx: kernel %s has a parameter of type .%s; want .u64, .u32, .f32 or a tensor map", e.Name, p[1])
			}
		}
		all = append(all, e)
	}
	return all, nil
}
