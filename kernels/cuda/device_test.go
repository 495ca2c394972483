package cuda

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// An empty device has memory and runs nothing.
type empty struct {
	driver.Device
	room, next uint64
	names      []string // of its functions
	memory     map[uint64][]byte
	launches   int
	broken     error
}

func newEmpty(room uint64) *empty {
	return &empty{room: room, next: 1 << 20, memory: map[uint64][]byte{}}
}

func (m *empty) Name() string                            { return "empty" }
func (m *empty) Bind() error                             { return nil }
func (m *empty) Close() error                            { return nil }
func (m *empty) Attribute(driver.Attribute) (int, error) { return 99 << 10, nil }
func (m *empty) Load([]byte) (driver.Module, error)      { return 1, nil }
func (m *empty) Function(_ driver.Module, name string) (driver.Function, error) {
	m.names = append(m.names, name)
	return driver.Function(len(m.names)), nil
}
func (m *empty) Alloc(n int) (uint64, error) {
	if uint64(n) > m.room {
		return 0, errors.New("out of memory")
	}
	m.room -= uint64(n)
	m.memory[m.next] = make([]byte, n)
	m.next += uint64(n+255) / 256 * 256
	return m.next - uint64(n+255)/256*256, nil
}
func (m *empty) Free(at uint64) error {
	m.room += uint64(len(m.memory[at]))
	delete(m.memory, at)
	return nil
}
func (m *empty) MemInfo() (free, total int, err error) { return int(m.room), 1 << 30, nil }
func (m *empty) Set(at uint64, _ byte, n int) error    { clear(m.memory[at][:n]); return nil }
func (m *empty) Pin(n int) ([]byte, error)             { return make([]byte, n), nil }
func (m *empty) Upload(at uint64, b []byte) error      { copy(m.memory[at], b); return nil }
func (m *empty) Download(b []byte, at uint64) error    { copy(b, m.memory[at]); return nil }
func (m *empty) Sync() error                           { return m.broken }
func (m *empty) SetFunctionAttribute(driver.Function, driver.FunctionAttribute, int) error {
	return nil
}
func (m *empty) Launch(f driver.Function, _ driver.Launch, args *driver.Args) error {
	switch m.names[f-1] {
	case "collect": // the fault word alone
		copy(m.memory[args.Words[0]], m.memory[args.Words[5]])
	case "distribute":
	default:
		m.launches++
	}
	return nil
}
func (m *empty) NewEvent() (driver.Event, error)                      { return 1, nil }
func (m *empty) Record(driver.Event) error                            { return nil }
func (m *empty) Wait(driver.Event) error                              { return m.broken }
func (m *empty) Begin() error                                         { return nil }
func (m *empty) End() (driver.Graph, error)                           { return 1, nil }
func (m *empty) Instantiate(driver.Graph) (driver.Exec, error)        { return 1, nil }
func (m *empty) Replay(driver.Exec) error                             { return nil }
func (m *empty) FreeGraph(driver.Graph) error                         { return nil }
func (m *empty) FreeExec(driver.Exec) error                           { return nil }
func (m *empty) Clusters(driver.Function, driver.Launch) (int, error) { return 0, nil }

// A device that failed says what it was doing.
func TestSuspects(t *testing.T) {
	d, m := openEmpty(t, 3<<20)
	x := d.New(k.F32, 3, 4)
	d.Fill(x, 1)
	d.Add(x, x, x)
	m.broken = errors.New("an illegal address")
	err := d.Sync()
	if err == nil || !strings.Contains(err.Error(), "latest first; Add of 1 x 12, 1 x 12, 1 x 12 (add, 1 × 1 × 1 blocks of 256); Fill of 1 x 12 (fill,") ||
		!strings.Contains(err.Error(), "illegal address") {
		t.Errorf("the failure reads %v", err)
	}
}

// After a fault nothing runs, and the failure stays.
func TestLost(t *testing.T) {
	d, m := openEmpty(t, 3<<20)
	x := d.New(k.F32, 3, 4)
	d.Add(x, x, x)
	m.broken = &driver.Error{Call: "cuStreamSynchronize", Code: 700, Name: "CUDA_ERROR_ILLEGAL_ADDRESS", Text: "an illegal access"}
	first := d.Sync()
	before := m.launches
	m.broken = nil
	d.Add(x, x, x)
	for _, err := range []error{first, d.Sync(), d.Read(make([]byte, 48), x)} {
		if err == nil || !errors.Is(err, k.ErrLost) || !strings.Contains(err.Error(), "Add of 1 x 12, 1 x 12, 1 x 12") || !strings.Contains(err.Error(), "started again") {
			t.Errorf("the failure reads %v", err)
		}
	}
	d.Free(d.New(k.F32, 1, 1))
	d.Free(x)
	if m.launches != before {
		t.Error("it goes on after a fault")
	}
}

// A step queues its operations without allocating.
func TestNothingAllocated(t *testing.T) {
	d, _ := openEmpty(t, 1<<30)
	f := func(rows, cols int) k.Tensor { return d.New(k.F32, rows, cols) }
	w := d.Load(k.Format{Type: k.BF16}, 64, 64, make([]byte, 2*64*64))
	x, y, row, ids, raw := f(8, 64), f(8, 64), f(1, 64), d.New(k.I32, 8, 1), make([]byte, 4*8*64)
	lp := f(8, 1)
	a := k.Attn{Heads: 2, KVHeads: 1, HeadDim: 32, Scale: 1, Starts: d.New(k.I32, 9, 1), Lengths: ids, MaxQueries: 1,
		Pages: d.New(k.I32, 8, 40), PageSize: 16}
	cache, z := f(640, 32), f(8, 8)
	step := func() {
		d.Write(x, raw)
		d.Write(x.Columns(0, 32), raw[:4*8*32])
		d.RMSNorm(y, x, row, 1e-6)
		d.Linear(y, x, w, row)
		d.MatMul(z, x, x, k.Gemm{Alpha: 1, TransB: true})
		d.Attention(y, k.Tensor{}, x, cache, cache, a)
		d.SwiGLU(x, x, y)
		d.Sample(ids, lp, x, lp, k.Dist{})
		d.Score(lp, lp, k.Tensor{}, x, w, ids, k.Dist{})
		d.ScoreGrad(y, x, w, lp, ids, lp, k.Dist{})
		if err := d.Read(raw[:32], lp); err != nil {
			t.Fatal(err)
		}
	}
	step()
	if n := testing.AllocsPerRun(20, step); n > 0 {
		t.Errorf("a step allocates %g times", n)
	}
}

func openEmpty(t *testing.T, room uint64) (*Device, *empty) {
	m := newEmpty(room)
	d, err := On(m, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d, m
}

// What does not fit is a failure with the numbers; the operations after it do nothing, and it is told once.
func TestOutOfMemory(t *testing.T) {
	d, m := openEmpty(t, 3<<20)
	x := d.New(k.F32, 1000, 1000)
	before := m.launches
	d.Fill(x, 1)
	d.Add(x, x, x)
	d.Write(x, make([]byte, 4e6))
	if m.launches != before {
		t.Errorf("%d launches after the failure", m.launches-before)
	}
	err := d.Read(make([]byte, 4e6), x)
	if err == nil || !strings.Contains(err.Error(), "1000 x 1000") || !strings.Contains(err.Error(), "4000000 bytes") {
		t.Errorf("the failure reads %v", err)
	}
	if err := d.Sync(); err != nil {
		t.Errorf("it came back: %v", err)
	}
}

// The word that kernels leave is told with the operation and the row, and cleared.
func TestFaultWord(t *testing.T) {
	d, m := openEmpty(t, 3<<20)
	binary.LittleEndian.PutUint64(m.memory[d.fault], uint64(7<<8|int(opEmbed))<<40|5<<8|1)
	if err := d.Sync(); err == nil || err.Error() != "cuda: Embed: row 5: an index is outside its table" {
		t.Errorf("the failure reads %v", err)
	}
	if err := d.Sync(); err != nil {
		t.Errorf("it came back: %v", err)
	}
	binary.LittleEndian.PutUint64(m.memory[d.fault], 77)
	if err := d.Sync(); err == nil || !strings.Contains(err.Error(), "0x4d") {
		t.Errorf("a word that no kernel leaves reads %v", err)
	}
}

// A recording holds launches alone, and keeps the scratch memory it was made with.
func TestCapture(t *testing.T) {
	d, m := openEmpty(t, 66<<20)
	x, g := d.New(k.F32, 4, 64), d.New(k.F32, 1, 1)
	for name, bad := range map[string]func(){
		"Write": func() { d.Write(x, make([]byte, 4*256)) },
		"New":   func() { d.New(k.F32, 1, 1) },
	} {
		if _, err := d.Capture(bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s in a recording: %v", name, err)
		}
		if err := d.Sync(); err != nil {
			t.Errorf("after %s in a recording: %v", name, err)
		}
	}
	before := m.launches
	graph, err := d.Capture(func() { d.SumSquares(g, x) })
	if err != nil || m.launches != before+2 {
		t.Fatalf("%d launches for SumSquares' two, %v", m.launches-before, err)
	}
	held := d.scratch.at
	d.SumSquares(g, d.New(k.F32, 1000, 10_000))
	if m.memory[held] == nil {
		t.Error("the scratch memory of a recording was freed")
	}
	graph.Launch()
	graph.Free()
}

// Every kernel's name in a method is one there is, and its arguments are those the PTX declares, for
// operands of no rows too: launches panic where they differ.
func TestEveryArgument(t *testing.T) {
	for _, naive := range []bool{false, true} {
		for _, rows := range []int{0, 1, 9, 40} {
			d, _ := openEmpty(t, 1<<30)
			d.naive = naive
			everyOperation(d, rows)
			if err := d.Sync(); err != nil {
				t.Errorf("%d rows: %v", rows, err)
			}
		}
	}
}

func everyOperation(d *Device, n int) {
	f := func(rows, cols int) k.Tensor { return d.New(k.F32, rows, cols) }
	i := func(rows int) k.Tensor { return d.New(k.I32, rows, 1) }
	for _, typ := range []k.DType{k.F32, k.BF16, k.F16} {
		w := d.Load(k.Format{Type: typ}, 33, 70, make([]byte, 33*70*typ.Size()))
		d.Embed(f(n, 70), w, i(n))
		d.Linear(f(n, 33), f(n, 70), w, k.Tensor{})
		d.Linear(f(n, 33), f(n, 70), w, f(1, 33))
		d.LinearGrad(f(n, 70), f(n, 33), w)
		for _, dist := range []k.Dist{{}, {Temperature: f(n, 1), Mask: d.New(k.I32, n, 2)}} {
			d.Score(f(n, 1), f(n, 1), k.Tensor{}, f(n, 70), w, i(n), dist)
			d.ScoreGrad(f(n, 70), f(n, 70), w, f(n, 1), i(n), f(n, 1), dist)
		}
		d.Unload(w)
	}
	x, y, z := f(n, 64), f(n, 64), f(n, 64)
	d.Write(x.Columns(3, 9), make([]byte, 4*9*n))
	d.Copy(x, y)
	d.Copy(x.Columns(1, 5), y.Columns(2, 5))
	d.Fill(x, 1)
	d.Add(x, y, z)
	d.SwiGLU(x, y, z)
	d.SwiGLUGrad(x, y, z, f(n, 64), f(n, 64))
	d.Gather(x, f(5, 64), i(n))
	d.Scatter(f(99, 64), x, i(n))
	d.ScatterAdd(f(99, 64), x, i(n))
	d.SumRows(f(1, 64), x)
	d.SumSquares(f(1, 1), x)
	d.AdamW(x, y, z, f(n, 64), k.Adam{Step: 1})
	d.AdamWAll([]k.Param{{W: x, M: y, V: z, G: f(n, 64)}}, k.Adam{Step: 1})
	d.SumSquaresAll(f(1, 2), []k.Tensor{x, y})
	d.RoPE(x, i(n), k.Rotary{HeadDim: 16, Table: f(9, 16)})
	for _, cols := range []int{64, longRun} {
		d.RMSNorm(f(n, cols), f(n, cols), f(1, cols), 1e-6)
		d.RMSNormGrad(f(n, cols), f(1, cols), f(n, cols), f(n, cols), f(1, cols), 1e-6)
	}
	for _, r := range []int{8, 64} {
		d.MatMul(f(n, r), x, f(r, 64), k.Gemm{TransB: true, Alpha: 1, Bias: f(1, r)})
		d.MatMul(f(64, r), x, f(n, r), k.Gemm{TransA: true, Alpha: 1, Accumulate: true})
	}
	dist := k.Dist{Temperature: f(n, 1), Mask: d.New(k.I32, n, 2)}
	d.LogProb(f(n, 1), f(n, 1), x, i(n), dist)
	d.LogProb(f(n, 1), f(n, 1), x, i(n), k.Dist{})
	d.Entropy(f(n, 1), x, f(n, 1), dist)
	d.Sample(i(n), f(n, 1), x, f(n, 1), dist)
	d.LogProbGrad(x, x, f(n, 1), i(n), f(n, 1), dist)
	for _, dim := range []int{16, 64, 128, 256} {
		a := k.Attn{Heads: 4, KVHeads: 2, HeadDim: dim, Scale: 1, Starts: i(2), Lengths: i(1), MaxQueries: n}
		q, key := f(n, 4*dim), f(n, 2*dim)
		d.Attention(f(n, 4*dim), f(n, 4), q, key, key, a)
		d.AttentionGrad(q, key, key, q, q, f(n, 4), q, key, key, a)
		a.Pages, a.PageSize, a.MaxQueries = d.New(k.I32, 1, 40), 16, min(n, 4)
		d.Attention(f(n, 4*dim), k.Tensor{}, q, f(640, 2*dim), f(640, 2*dim), a)
	}
}
