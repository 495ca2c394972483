package ptxsim

import (
	"strings"
	"sync"
)

// A kernel is one .entry, made ready to run.
type kernel struct {
	name      string
	params    []param
	paramSize int
	most      [3]int // .maxntid, zero: any
	exactly   [3]int // .reqntid, zero: any
	cluster   [3]int // .reqnctapercluster, zero: as the launch has it
	code      []instruction

	n32, n64, nPred int // registers of each bank
	values32        []fixed32
	values64        []fixed64
	specials        []special

	static      int // bytes of shared memory with a name
	dynamic32   int // the registers that hold where dynamic shared memory begins, -1: none
	dynamic64   int
	agents      bool // units that work by themselves are used
	grainShared uint // log2 of the bytes of the smallest access
	grainGlobal uint
}

// A param is a parameter: so many bytes at an offset.
type param struct {
	name         string
	offset, size int
}

type (
	fixed32 struct {
		reg int
		v   uint32
	}
	fixed64 struct {
		reg int
		v   uint64
	}
	// A special register is of bank 32 and set when a block begins.
	special struct {
		name string
		reg  int
	}
)

// How an instruction is scheduled.
const (
	plain      = iota
	branching  // to target
	leaving    // ends its threads
	collective // waits until all the lanes it names have come
	atBarrier  // a block's barrier
)

// An instruction is one statement of a kernel.
type instruction struct {
	run    func(w *warp, lanes uint32)
	want   func(w *warp, lane int) uint32        // of a collective: the lanes that must come
	meter  func(t *tally, w *warp, lanes uint32) // counts what it moves and multiplies; see counts.go
	kind   uint8
	not    bool // run where the predicate is false
	pred   int  // -1: everywhere
	target int
	line   int
	op     string
}

// kernels keeps what was parsed, by section: every device loads the same few modules.
var kernels sync.Map

// A parsed module is its kernels by name, and the processor they are for.
type parsed struct {
	kernels map[string]*kernel
	target  string
}

// modules keeps the parsed modules by their text: to find where kernels end takes as long as to run small ones. There is one
// text for each planted bug, so they are not all kept.
var modules struct {
	sync.Mutex
	of map[string]parsed
}

const mostModules = 32

// parse makes the kernels of a module, by name. target is the processor they are for.
func parse(text string) (all map[string]*kernel, target string, err error) {
	modules.Lock()
	defer modules.Unlock()
	if m, ok := modules.of[text]; ok {
		return m.kernels, m.target, nil
	}
	if all, target, err = parseModule(text); err != nil {
		return nil, "", err
	}
	if modules.of == nil || len(modules.of) == mostModules {
		modules.of = map[string]parsed{}
	}
	modules.of[strings.Clone(text)] = parsed{all, target}
	return all, target, nil
}

func parseModule(text string) (all map[string]*kernel, target string, err error) {
	parts, target, err := sections(text)
	if err != nil {
		return nil, "", err
	}
	all = map[string]*kernel{}
	for _, s := range parts {
		k, ok := kernels.Load(s)
		if !ok {
			made, err := parseKernel(s)
			if err != nil {
				return nil, "", err
			}
			k, _ = kernels.LoadOrStore(section{strings.Clone(s.text), s.line, s.dynamic}, made)
		}
		all[k.(*kernel).name] = k.(*kernel)
	}
	return all, target, nil
}
