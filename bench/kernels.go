package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	k "github.com/r2-reasoner/r2/kernels"
)

// flush is how many bytes of a weight's copies go by before one comes again, so that none is found in
// a cache, as in a forward pass of a model that no cache holds.
const flush = 96 << 20

// least is how long a timed run of one operation goes on at least.
const least = 20 * time.Millisecond

// An op is one call to be measured.
type op struct {
	name string
	unit string // GFLOP/s or GB/s: what bounds it
	work work
	call func(i int) // the i-th call
}

// Kernels measures operations on the shapes of the subject's model: the frozen matrices at 1, 16 and 512
// rows, a LoRA pair, attention, the row-wise operations and the head, and what training needs besides.
func (s *Subject) Kernels(ctx context.Context) ([]Row, error) {
	be := s.Decoder.Backend()
	if err := be.Attach(); err != nil {
		return nil, err
	}
	defer be.Detach()
	p := &problems{be: be, s: s, rng: rand.New(rand.NewPCG(s.Seed, 1))}
	var rows []Row
	for _, group := range []func() []op{p.linears, p.lora, p.attentions, p.rowwise, p.head, p.backward} {
		ops := group()
		for _, o := range ops {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			row, err := s.measure(o)
			if err != nil {
				return nil, err
			}
			rows = append(rows, row)
		}
		p.free()
	}
	return rows, nil
}

// measure times calls of o until a run is long enough to time.
func (s *Subject) measure(o op) (Row, error) {
	calls, i := 1, 0
	each, err := s.repeat(func(run int) (time.Duration, error) {
		for {
			start := time.Now()
			for range calls {
				o.call(i)
				i++
			}
			err := s.Decoder.Backend().Sync()
			took := time.Since(start)
			if err != nil || run > 0 || took >= least {
				return took / time.Duration(calls), err
			}
			calls *= 2
		}
	})
	amount := o.work.flops * 1e-9
	if o.unit == "GB/s" {
		amount = o.work.bytes * 1e-9
	}
	row := s.row("kernels", o.name, o.unit, amount, s.Roof.seconds(o.work), each)
	row.Flops, row.Bytes = o.work.flops, o.work.bytes
	return row, err
}

// problems makes operands.
type problems struct {
	be      k.Backend
	s       *Subject
	rng     *rand.Rand
	tensors []k.Tensor
	weights []k.Weight
}

func (p *problems) free() {
	for _, t := range p.tensors {
		p.be.Free(t)
	}
	for _, w := range p.weights {
		p.be.Unload(w)
	}
	p.tensors, p.weights = nil, nil
}

// floats is a tensor of normal numbers.
func (p *problems) floats(rows, cols int) k.Tensor {
	t := p.be.New(k.F32, rows, cols)
	p.tensors = append(p.tensors, t)
	b := make([]byte, 0, 4*rows*cols)
	for range rows * cols {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(p.rng.NormFloat64())))
	}
	p.be.Write(t, b)
	return t
}

// ints is a column of them.
func (p *problems) ints(v []int32) k.Tensor {
	var rows [][]int32
	for i := range v {
		rows = append(rows, v[i:i+1])
	}
	return p.rows(rows)
}

// rows is rows of integers, all as long as the first.
func (p *problems) rows(v [][]int32) k.Tensor {
	t := p.be.New(k.I32, len(v), len(v[0]))
	p.tensors = append(p.tensors, t)
	var b []byte
	for _, row := range v {
		for _, x := range row {
			b = binary.LittleEndian.AppendUint32(b, uint32(x))
		}
	}
	p.be.Write(t, b)
	return t
}

// loaded is copies of one weight, more than a cache holds.
func (p *problems) loaded(out, in int) []k.Weight {
	f := p.s.Decoder.Format()
	raw := make([]byte, out*f.Type.Bytes(in))
	size := f.Type.Size()
	if f.Type.Blocks() {
		size = f.Type.Bytes(k.BlockLen)
	}
	for i := 0; i < len(raw); i += size {
		bits := math.Float32bits(float32(p.rng.NormFloat64()))
		switch f.Type {
		case k.Q8_0, k.Q4_0, k.Q4_1:
			for j := i; j < i+size; j++ {
				raw[j] = byte(p.rng.Uint32())
			}
			raw[i+1] = 0x1c // a small scale, and minimum
			raw[i+3] &= 0x9f
		case k.F32:
			binary.LittleEndian.PutUint32(raw[i:], bits)
		case k.BF16:
			binary.LittleEndian.PutUint16(raw[i:], uint16(bits>>16))
		default:
			binary.LittleEndian.PutUint16(raw[i:], uint16(0x3000|bits>>20&0x8fff)) // small F16 numbers of either sign
		}
	}
	ws := make([]k.Weight, min(256, 1+flush/len(raw)))
	for i := range ws {
		ws[i] = p.be.Load(f, out, in, raw)
	}
	p.weights = append(p.weights, ws...)
	return ws
}

func (p *problems) linears() []op {
	c := p.s.Decoder.Config
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	return p.linear([][2]int{{q + 2*kv, c.Hidden}, {c.Hidden, q}, {2 * c.FFN, c.Hidden}, {c.Hidden, c.FFN}}, 1, 16, 512)
}

func (p *problems) head() []op {
	c := p.s.Decoder.Config
	logits, uniform := p.floats(16, c.Vocab), p.floats(16, 1)
	p.be.Fill(uniform, 0.5)
	ids, lp, lse := p.ints(make([]int32, 16)), p.floats(16, 1), p.floats(16, 1)
	ops := p.linear([][2]int{{c.Vocab, c.Hidden}}, 1, 16)
	for _, m := range []int{1, 16} {
		ops = append(ops,
			op{fmt.Sprintf("Sample %d of %d", m, c.Vocab), "GB/s", work{bytes: float64(4 * m * c.Vocab)}, func(int) {
				p.be.Sample(ids.Slice(0, m), lp.Slice(0, m), logits.Slice(0, m), uniform.Slice(0, m), k.Dist{})
			}},
			op{fmt.Sprintf("LogProb %d of %d", m, c.Vocab), "GB/s", work{bytes: float64(4 * m * c.Vocab)}, func(int) {
				p.be.LogProb(lp.Slice(0, m), lse.Slice(0, m), logits.Slice(0, m), ids.Slice(0, m), k.Dist{})
			}})
	}
	return ops
}

// linear is Linear of some shapes at some numbers of rows.
func (p *problems) linear(shapes [][2]int, rows ...int) (ops []op) {
	for _, shape := range shapes {
		ws := p.loaded(shape[0], shape[1])
		for _, m := range rows {
			x, out := p.floats(m, shape[1]), p.floats(m, shape[0])
			n := float64(shape[0] * shape[1])
			w := work{2 * n * float64(m), float64(shape[0] * p.s.Decoder.Format().Type.Bytes(shape[1]))}
			unit := "GFLOP/s"
			if w.bytes/p.s.Roof.Bytes > w.flops/p.s.Roof.Flops {
				unit = "GB/s"
			}
			ops = append(ops, op{fmt.Sprintf("Linear %dx%d, %d rows", shape[0], shape[1], m), unit, w, func(i int) {
				p.be.Linear(out, x, ws[i%len(ws)], k.Tensor{})
			}})
		}
	}
	return ops
}

// lora is what a pair adds to a projection.
func (p *problems) lora() (ops []op) {
	c := p.s.Decoder.Config
	a, b := p.floats(loraRank, c.Hidden), p.floats(c.FFN, loraRank)
	for _, m := range []int{1, 16, 512} {
		x, low, out := p.floats(m, c.Hidden), p.floats(m, loraRank), p.floats(m, c.FFN)
		n := float64((c.Hidden + c.FFN) * loraRank)
		ops = append(ops, op{fmt.Sprintf("LoRA %dx%d rank %d, %d rows", c.FFN, c.Hidden, loraRank, m), "GFLOP/s", work{2 * n * float64(m), 4 * (n + float64(m*(c.Hidden+2*c.FFN)))},
			func(int) {
				p.be.MatMul(low, x, a, k.Gemm{TransB: true, Alpha: 2})
				p.be.MatMul(out, low, b, k.Gemm{TransB: true, Alpha: 1, Accumulate: true})
			}})
	}
	return ops
}

// attentions are a prompt of 512, and 1 and 16 sequences of 512 keys each, in pages.
func (p *problems) attentions() (ops []op) {
	c := p.s.Decoder.Config
	const n = 512
	flops := 4 * float64(c.Heads*c.HeadDim)
	attn := k.Attn{Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Scale: float32(1 / math.Sqrt(float64(c.HeadDim)))}
	q, out, lse := p.floats(n, c.Heads*c.HeadDim), p.floats(n, c.Heads*c.HeadDim), p.floats(n, c.Heads)
	key, value := p.floats(n, c.KVHeads*c.HeadDim), p.floats(n, c.KVHeads*c.HeadDim)
	whole := attn
	whole.Starts, whole.Lengths, whole.MaxQueries = p.ints([]int32{0, n}), p.ints([]int32{n}), n
	ops = append(ops, op{fmt.Sprintf("Attention, a prompt of %d", n), "GFLOP/s", work{flops * float64(triangle(n)), float64(8 * n * (c.Heads + c.KVHeads) * c.HeadDim)},
		func(int) { p.be.Attention(out, lse, q, key, value, whole) }})
	for _, m := range []int{1, 16} {
		keys, values := p.floats(m*n, c.KVHeads*c.HeadDim), p.floats(m*n, c.KVHeads*c.HeadDim)
		step := attn
		step.MaxQueries, step.PageSize = 1, pageSize
		starts, lengths, pages := []int32{0}, []int32{}, [][]int32{}
		for s := range m {
			starts, lengths = append(starts, int32(s+1)), append(lengths, n)
			var list []int32
			for i := range n / pageSize {
				list = append(list, int32(s*n/pageSize+i))
			}
			pages = append(pages, list)
		}
		step.Starts, step.Lengths, step.Pages = p.ints(starts), p.ints(lengths), p.rows(pages)
		ops = append(ops, op{fmt.Sprintf("Attention, %d steps over %d keys", m, n), "GB/s",
			work{flops * float64(m*n), float64(8 * m * n * c.KVHeads * c.HeadDim)},
			func(int) { p.be.Attention(out.Slice(0, m), lse.Slice(0, m), q.Slice(0, m), keys, values, step) }})
	}
	return ops
}

// rowwise are the operations that read and write activations once.
func (p *problems) rowwise() (ops []op) {
	c := p.s.Decoder.Config
	for _, m := range []int{1, 512} {
		x, y, z, w := p.floats(m, c.Hidden), p.floats(m, c.Hidden), p.floats(m, c.Hidden), p.floats(1, c.Hidden)
		gateUp, ff := p.floats(m, 2*c.FFN), p.floats(m, c.FFN)
		size := float64(4 * m * c.Hidden)
		ops = append(ops,
			op{fmt.Sprintf("RMSNorm %dx%d", m, c.Hidden), "GB/s", work{bytes: 2 * size}, func(int) { p.be.RMSNorm(y, x, w, 1e-5) }},
			op{fmt.Sprintf("Add %dx%d", m, c.Hidden), "GB/s", work{bytes: 3 * size}, func(int) { p.be.Add(y, x, z) }},
			op{fmt.Sprintf("SwiGLU %dx%d", m, c.FFN), "GB/s", work{bytes: float64(12 * m * c.FFN)},
				func(int) { p.be.SwiGLU(ff, gateUp.Columns(0, c.FFN), gateUp.Columns(c.FFN, c.FFN)) }})
	}
	return ops
}
