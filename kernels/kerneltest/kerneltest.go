// Package kerneltest is the conformance suite of kernels.Backend: it plays every operation on a device
// and on kernels/ref with random shapes and inputs, outputs poisoned and neighbours guarded, and checks
// the law of one row, one answer bit by bit.
package kerneltest

import (
	"hash/fnv"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/ref"
)

// Run checks the device that open opens; open closes it by t.Cleanup. The inputs are new in each run:
// R2_SEED=n repeats the run that said so.
func Run(t *testing.T, open func(t *testing.T) kernels.Backend) {
	test := func(name string, f func(t *testing.T, be kernels.Backend, g source)) {
		t.Run(name, func(t *testing.T) { f(t, attach(t, open), seeded(t, name)) })
	}
	for _, op := range operations {
		test(op.name+"/values", func(t *testing.T, be kernels.Backend, g source) {
			for _, rows := range []int{0, 1, 1, 2, 3, 5, 7, 7, 14, 20, 33, 33, 70} {
				values(t, be, g, op.make(g, rows))
			}
		})
		test(op.name+"/laws", func(t *testing.T, be kernels.Backend, g source) {
			laws(t, be, g, func(rows int) *problem { return op.make(g, rows) })
		})
	}
	for _, c := range cases {
		test(c.name, c.check)
	}
}

// RunFormat checks what a device that open opens does with weights of one more format.
func RunFormat(t *testing.T, open func(t *testing.T) kernels.Backend, f kernels.Format) {
	runFormat(t, open, f, []string{"Embed", "Linear", "LinearGrad"}, slicesOf(formatChecks, formatHeadChecks, fusedChecks))
}

// RunLinear checks the product alone: of a format whose weights RunFormat has checked, with rows rounded otherwise.
func RunLinear(t *testing.T, open func(t *testing.T) kernels.Backend, f kernels.Format) {
	runFormat(t, open, f, []string{"Linear"}, slicesOf(formatChecks, fusedChecks))
}

func runFormat(t *testing.T, open func(t *testing.T) kernels.Backend, f kernels.Format, ops []string, checks []check) {
	test := func(name string, check func(t *testing.T, be kernels.Backend, g source)) {
		t.Run(f.String()+"/"+name, func(t *testing.T) {
			g := seeded(t, f.String()+name)
			g.formats = []kernels.Format{f}
			check(t, attach(t, open), g)
		})
	}
	for _, op := range operations {
		if !slices.Contains(ops, op.name) {
			continue
		}
		test(op.name+"/values", func(t *testing.T, be kernels.Backend, g source) {
			for _, rows := range []int{0, 1, 1, 2, 3, 7, 14, 20, 33, 70} {
				values(t, be, g, op.make(g, rows))
			}
		})
		test(op.name+"/laws", func(t *testing.T, be kernels.Backend, g source) {
			laws(t, be, g, func(rows int) *problem { return op.make(g, rows) })
		})
	}
	for _, c := range checks {
		test(c.name, c.check)
	}
}

// Same checks that two devices give equal bits: two numbers of threads, or assembly and its twin.
func Same(t *testing.T, one, other func(t *testing.T) kernels.Backend) {
	test := func(name string, f func(t *testing.T, g source, rows int) *problem) {
		t.Run(name, func(t *testing.T) {
			a, b, g := attach(t, one), attach(t, other), seeded(t, name)
			for _, rows := range []int{1, 7, 130} {
				p := f(t, g, rows)
				x, y := p.run(t, a, g), p.run(t, b, g)
				for i, o := range p.operands {
					if o.role != input {
						equalBits(t, x[i], y[i], "operand %d of %d rows on %s and on %s", i, rows, a.Name(), b.Name())
					}
				}
			}
		})
	}
	for _, op := range operations {
		test(op.name, func(_ *testing.T, g source, rows int) *problem { return op.make(g, rows) })
	}
	test("Attention", func(_ *testing.T, g source, rows int) *problem {
		h := g.heads()
		seqs := g.sequences(h, 4, rows)
		return attend(g, h, seqs, wholes(seqs, g.Perm(4)), 16).problem
	})
	test("AttentionGrad", func(t *testing.T, g source, rows int) *problem {
		h := g.heads()
		seqs := g.sequences(h, 4, rows)
		return grade(t, g, h, seqs, wholes(seqs, g.Perm(4)), 1).problem
	})
}

// A check is a part of the suite that is not one call of one operation.
type check struct {
	name  string
	check func(t *testing.T, be kernels.Backend, g source)
}

// cases are the checks that are not of one call.
var cases = slicesOf(memoryChecks, matrixChecks, formatChecks, attentionChecks, distChecks, scoreChecks, fusedChecks, specialChecks)

func slicesOf(parts ...[]check) (all []check) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func attach(t *testing.T, open func(t *testing.T) kernels.Backend) kernels.Backend {
	be := open(t)
	runtime.LockOSThread() // whether or not the device asks for it
	if err := be.Attach(); err != nil {
		t.Fatalf("attach: %v", err)
	}
	t.Cleanup(func() {
		be.Detach()
		runtime.UnlockOSThread()
	})
	return be
}

// A source gives random inputs.
type source struct {
	*rand.Rand
	formats []kernels.Format // of random weights
	rounds  bool             // keys and values: see rounding
}

var seed = sync.OnceValue(func() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("R2_SEED"), 10, 64); err == nil {
		return n
	}
	return uint64(time.Now().UnixNano())
})

// seeded is the source of one subtest: the same whichever others run.
func seeded(t *testing.T, name string) source {
	t.Logf("R2_SEED=%d", seed())
	h := fnv.New64a()
	h.Write([]byte(name))
	return source{Rand: rand.New(rand.NewPCG(seed(), h.Sum64())), formats: exact}
}

// oracle is the device that all others are measured by.
func oracle() *ref.Device { return ref.New() }
