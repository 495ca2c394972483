package ptxsim

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// lanes plays a warp: word l of the input is lane l's %r3, and what it leaves in %r4 comes back.
func lanes(t *testing.T, body string, in []uint32) []uint32 {
	t.Helper()
	r := newRig(t, Options{}, module("ld.global.u32 %r3, [%rd4];\n"+body+"\nst.global.u32 [%rd5], %r4;"))
	var raw []byte
	for _, v := range in {
		raw = binary.LittleEndian.AppendUint32(raw, v)
	}
	a, b := r.memory(raw), r.memory(make([]byte, len(raw)))
	if err := r.launch(1, len(in), 0, a, b, 0); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	out := make([]uint32, len(in))
	for i, raw := 0, r.read(b, len(raw)); i < len(out); i++ {
		out[i] = binary.LittleEndian.Uint32(raw[4*i:])
	}
	return out
}

// Exchanges between lanes, by what the definition says of each lane.
func TestWarp(t *testing.T) {
	in := make([]uint32, 32)
	rng := rand.New(rand.NewPCG(4, 9))
	for i := range in {
		in[i] = rng.Uint32N(5) * 1000
	}
	for body, want := range map[string]func(l int) uint32{
		"shfl.sync.bfly.b32 %r4, %r3, 5, 31, 0xffffffff;":    func(l int) uint32 { return in[l^5] },
		"shfl.sync.idx.b32 %r4, %r3, 9, 31, 0xffffffff;":     func(l int) uint32 { return in[9] },
		"shfl.sync.up.b32 %r4, %r3, 3, 0, 0xffffffff;":       func(l int) uint32 { return in[map[bool]int{true: l - 3, false: l}[l >= 3]] },
		"shfl.sync.down.b32 %r4, %r3, 3, 31, 0xffffffff;":    func(l int) uint32 { return in[map[bool]int{true: l + 3, false: l}[l < 29]] },
		"shfl.sync.idx.b32 %r4, %r3, 2, 0x181f, 0xffffffff;": func(l int) uint32 { return in[l&^7|2] }, // segments of 8
		"shfl.sync.down.b32 %r4|%p1, %r3, 1, 0x181f, 0xffffffff;\n@%p1 mov.u32 %r4, 7;": func(l int) uint32 {
			if l%8 < 7 {
				return 7
			}
			return in[l]
		},
		"setp.gt.u32 %p1, %r3, 1500;\nvote.sync.ballot.b32 %r4, %p1, 0xffffffff;": func(int) (v uint32) {
			for l, x := range in {
				if x > 1500 {
					v |= 1 << l
				}
			}
			return v
		},
		"match.any.sync.b32 %r4, %r3, 0xffffffff;": func(l int) (v uint32) {
			for j, x := range in {
				if x == in[l] {
					v |= 1 << j
				}
			}
			return v
		},
		"redux.sync.add.u32 %r4, %r3, 0xffffffff;": func(int) (v uint32) {
			for _, x := range in {
				v += x
			}
			return v
		},
		"redux.sync.max.s32 %r4, %r3, 0xffffffff;": func(int) (v uint32) {
			for _, x := range in {
				v = max(v, x)
			}
			return v
		},
		"elect.sync %r5|%p1, 0xffffffff;\nselp.u32 %r4, 1, 0, %p1;":                              func(l int) uint32 { return map[bool]uint32{l == 0: 1}[true] },
		"setp.lt.u32 %p1, %r2, 6;\nmov.u32 %r4, 0;\n@%p1 activemask.b32 %r4;":                    func(l int) uint32 { return map[bool]uint32{l < 6: 63}[true] },
		"setp.lt.u32 %p1, %r2, 6;\nmov.u32 %r4, 0;\n@%p1 shfl.sync.idx.b32 %r4, %r3, 1, 31, 63;": func(l int) uint32 { return map[bool]uint32{l < 6: in[1]}[true] },
		"mov.u32 %r4, %lanemask_lt;": func(l int) uint32 { return 1<<l - 1 },
		// Lanes that come to a shuffle at different times wait for each other.
		"and.b32 %r5, %r2, 1;\nsetp.eq.u32 %p1, %r5, 0;\nmov.u32 %r6, 1;\n@%p1 bra far;\nback:\nshfl.sync.bfly.b32 %r4, %r6, 1, 31, 0xffffffff;\nbra done;\nfar:\nmov.u32 %r6, 2;\nbra back;\ndone:": func(l int) uint32 {
			return 1 + uint32(l%2)
		},
	} {
		for l, got := range lanes(t, body, in) {
			if got != want(l) {
				t.Errorf("%s\nlane %d has %d, not %d", body, l, got, want(l))
				break
			}
		}
	}
}

// A matrix instruction against the plain product of the matrices that its lanes hold, in both formats.
func TestMatrixProduct(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 9))
	for _, name := range []string{"bf16", "f16"} {
		var a [16][16]float64
		var b [16][8]float64
		var c [16][8]float64
		pick := func() (float64, uint32) {
			v := rounded16(name, rng.NormFloat64())
			return decode(name, uint64(v)), v
		}
		aBits, bBits := [16][16]uint32{}, [16][8]uint32{}
		for i := range 16 {
			for k := range 16 {
				a[i][k], aBits[i][k] = pick()
			}
			for j := range 8 {
				b[i][j], bBits[i][j] = pick()
				c[i][j] = float64(float32(rng.NormFloat64()))
			}
		}
		var raw []byte
		put := func(v uint32) { raw = binary.LittleEndian.AppendUint32(raw, v) }
		for l := range 32 {
			g, t := l/4, l%4
			put(aBits[g][2*t] | aBits[g][2*t+1]<<16)
			put(aBits[g+8][2*t] | aBits[g+8][2*t+1]<<16)
			put(aBits[g][2*t+8] | aBits[g][2*t+9]<<16)
			put(aBits[g+8][2*t+8] | aBits[g+8][2*t+9]<<16)
			put(bBits[2*t][g] | bBits[2*t+1][g]<<16)
			put(bBits[2*t+8][g] | bBits[2*t+9][g]<<16)
			for _, x := range []float64{c[g][2*t], c[g][2*t+1], c[g+8][2*t], c[g+8][2*t+1]} {
				put(math.Float32bits(float32(x)))
			}
		}
		body := "mul.wide.u32 %rd6, %r2, 40;\nadd.s64 %rd6, %rd1, %rd6;\nmul.wide.u32 %rd7, %r2, 16;\nadd.s64 %rd7, %rd2, %rd7;\n"
		for i := range 10 {
			body += fmt.Sprintf("ld.global.b32 %%r%d, [%%rd6+%d];\n", 10+i, 4*i)
		}
		body += "mma.sync.aligned.m16n8k16.row.col.f32." + name + "." + name + ".f32 {%r20,%r21,%r22,%r23}, {%r10,%r11,%r12,%r13}, {%r14,%r15}, {%r16,%r17,%r18,%r19};\n" +
			"st.global.v4.b32 [%rd7], {%r20,%r21,%r22,%r23};"
		r := newRig(t, Options{}, module(body))
		from, to := r.memory(raw), r.memory(make([]byte, 512))
		if err := r.launch(1, 32, 0, from, to, 0); err != nil {
			t.Fatal(err)
		}
		out := r.read(to, 512)
		for l := range 32 {
			for i := range 4 {
				row, col := l/4+i/2*8, l%4*2+i%2
				want := c[row][col]
				for k := range 16 {
					want += a[row][k] * b[k][col]
				}
				got := float64(math.Float32frombits(binary.LittleEndian.Uint32(out[16*l+4*i:])))
				if !(math.Abs(got-want) < 1e-5) {
					t.Fatalf("%s: element %d, %d is %v, not %v", name, row, col, want, got)
				}
			}
		}
	}
}

func rounded16(name string, x float64) uint32 {
	return uint32(ladders[name]().round(big.NewFloat(x), false))
}

// Matrices of 16 bits through shared memory: what is stored at one end of it comes back as the definition has it.
func TestMatrixMoves(t *testing.T) {
	in := make([]uint32, 32) // an 8×8 matrix of 16 bits, row by row: element i is i
	for i := range in {
		in[i] = uint32(2*i) | uint32(2*i+1)<<16
	}
	fill := "shl.b32 %r5, %r2, 2;\nmov.u32 %r6, dyn;\nadd.s32 %r5, %r5, %r6;\nst.shared.u32 [%r5], %r3;\nbar.sync 0;\nand.b32 %r7, %r2, 7;\nshl.b32 %r7, %r7, 4;\nadd.s32 %r7, %r7, %r6;\n"
	back := "bar.sync 0;\nld.shared.u32 %r4, [%r5];\n"
	for body, want := range map[string]func(l int) uint32{
		"ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r7];\n":                           func(l int) uint32 { return in[l] },
		"ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%r4}, [%r7];\n":                     func(l int) uint32 { g, t := l/4, l%4; return uint32(16*t+g) | uint32(16*t+8+g)<<16 },
		"bar.sync 0;\nstmatrix.sync.aligned.m8n8.x1.shared.b16 [%r7], {%r3};\n" + back:       func(l int) uint32 { return in[l] },
		"bar.sync 0;\nstmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%r7], {%r3};\n" + back: func(l int) uint32 { g, t := l/4, l%4; return uint32(16*t+g) | uint32(16*t+8+g)<<16 },
	} {
		r := newRig(t, Options{}, module("ld.global.u32 %r3, [%rd4];\n"+fill+body+"st.global.u32 [%rd5], %r4;"))
		var raw []byte
		for _, v := range in {
			raw = binary.LittleEndian.AppendUint32(raw, v)
		}
		a, b := r.memory(raw), r.memory(make([]byte, 128))
		if err := r.launch(1, 32, 128, a, b, 0); err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		out := r.read(b, 128)
		for l := range 32 {
			if got := binary.LittleEndian.Uint32(out[4*l:]); got != want(l) {
				t.Errorf("%slane %d has %#x, not %#x", body, l, got, want(l))
				break
			}
		}
	}
}
