package cuda

import (
	"fmt"
	"slices"
	"testing"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/engine/sample"
	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
	"github.com/r2-reasoner/r2/kernels/cuda/driver/drivertest"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

const decodePages, decodePageSize = 8, 4

// decoding is a runner of a tiny model, with an adapter as number 1, for up to 12 sequences.
func decoding(t *testing.T, be k.Backend) *runner.Runner {
	t.Helper()
	return decodingOf(t, be, model.Options{DType: weights.BF16})
}

// decodingOf converts the matrices as the options say.
func decodingOf(t *testing.T, be k.Backend, o model.Options) *runner.Runner {
	t.Helper()
	src := modeltest.Tiny("qwen2", 5)
	o.Context, o.Convert = 64, true
	if o.DType.Block() > 1 {
		src.Config.FFN = 64 // whole blocks
	}
	host, err := model.RandomAdapter(src.Config, weights.AdapterConfig{R: 4, Alpha: 8, Targets: weights.Targets{Names: model.Modules()}}, 9)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range host.Pairs {
		for i := range p.B {
			p.B[i] = float32(i%7-3) / 16
		}
	}
	var dec *model.Decoder
	var ad *model.Adapter
	attached(t, be, func() error {
		if dec, err = model.Load(be, src.Config, src, o); err != nil {
			return err
		}
		ad, err = dec.LoadAdapter(host)
		return err
	})
	size := model.Size{Tokens: 12, Sequences: 12, Wanted: 12, Slice: 5, Pages: decodePages, PageSize: decodePageSize, Rank: 4, Masks: true}
	run, err := runner.New(dec, size, 12*decodePages)
	if err != nil {
		t.Fatal(err)
	}
	run.SetAdapter(1, ad)
	return run
}

// A step is a decode step of n sequences: each has a token at the position, and its own pages.
type step struct {
	n, position int
	adapter     int32
	masks       bool
}

func (s step) batch() (*batch.Batch, []sample.Draw) {
	b, draws := &batch.Batch{Starts: []int32{0}}, make([]sample.Draw, s.n)
	for i := range s.n {
		var pages []int32
		for p := range s.position/decodePageSize + 1 {
			pages = append(pages, int32(p*12+i))
		}
		at := pages[s.position/decodePageSize]*decodePageSize + int32(s.position%decodePageSize)
		b.Tokens, b.Positions = append(b.Tokens, int32(7*i+s.position)%90), append(b.Positions, int32(s.position))
		b.Starts, b.Lengths, b.Pages = append(b.Starts, int32(i+1)), append(b.Lengths, int32(s.position+1)), append(b.Pages, pages)
		b.Slots, b.Adapters, b.Want = append(b.Slots, at), append(b.Adapters, s.adapter), append(b.Want, int32(i))
		b.Temperatures = append(b.Temperatures, 0.5+float32(i)/8)
		draws[i] = sample.Draw{Params: sample.Params{Temperature: b.Temperatures[i], Seed: 3}, Sample: uint32(i), Step: uint32(s.position)}
		for w := range 3 {
			if s.masks {
				b.Masks = append(b.Masks, 0x5555aaaa>>w)
			}
		}
	}
	return b, draws
}

// Decode steps as recorded graphs give the bits of their operations one by one: for every number of rows,
// with and without an adapter and masks, at positions that grow, and after a graph has been given up.
func TestDecodeGraphs(t *testing.T) { decodeGraphs(t, newSimulator(), simulated(t)) }

func TestDecodeOnGPU(t *testing.T) {
	if drivertest.Simulated() {
		t.Skip("TestDecodeGraphs is on the simulator")
	}
	needGPU(t).Close()
	gpu, err := driver.Open(drivertest.NeedGPU(t))
	if err != nil {
		t.Fatal(err)
	}
	defer gpu.Close()
	decodeGraphs(t, gpu, needGPU(t))
}

func decodeGraphs(t *testing.T, on driver.Device, other *Device) {
	plain := decoding(t, struct{ k.Backend }{other}) // which cannot record
	c := &counter{Device: on}
	d, err := On(c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	graphs := decoding(t, d)
	play := func(r *runner.Runner, s step) string {
		b, draws := s.batch()
		tokens, err := r.Step(b, draws)
		if err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
		return fmt.Sprint(tokens)
	}
	for position, n := range []int{1, 12, 9, 11, 2, 5, 10, 12} {
		for _, s := range []step{{n, position, 0, false}, {n, position, 1, position%2 == 0}} {
			*c = counter{Device: c.Device}
			if got, want := play(graphs, s), play(plain, s); got != want {
				t.Errorf("%+v: the graph drew %s, its operations %s", s, got, want)
			}
			if c.replays != 1 {
				t.Errorf("%+v was not a graph", s)
			}
		}
	}
	s := step{12, 8, 1, false}
	play(graphs, s)
	*c = counter{Device: c.Device}
	play(graphs, s)
	if c.uploads != 1 || c.downloads != 1 || c.syncs != 1 || c.launches != 2 || c.replays != 1 {
		t.Errorf("a step is %d uploads, %d downloads, %d syncs, %d launches and %d replays; want 1, 1, 1, 2 and 1", c.uploads, c.downloads,
			c.syncs, c.launches, c.replays)
	}
}

// A step whose rows have several adapters, or some have none, is a graph too, with the bits of its operations;
// one of other rows that are rounded to as many is the same graph.
func TestMixedGraphs(t *testing.T) {
	plain := decoding(t, struct{ k.Backend }{simulated(t)})
	c := &counter{Device: newSimulator()}
	d, err := On(c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	graphs := decoding(t, d)
	recorded := 0
	for position, rows := range [][2]int{{5, 3}, {4, 4}, {6, 3}, {4, 4}, {7, 5}} { // without and with the adapter
		s := step{n: rows[0] + rows[1], position: position, masks: position == 1}
		b, draws := s.batch()
		for i := range rows[1] {
			b.Adapters[rows[0]+i] = 1
		}
		*c = counter{Device: c.Device}
		want, err := plain.Step(b, draws)
		if err != nil {
			t.Fatal(err)
		}
		got, err := graphs.Step(b, draws)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v rows: the graph drew %v, its operations %v (%v)", rows, got, want, err)
		}
		if c.replays != 1 {
			t.Errorf("%v rows were not a graph", rows)
		}
		recorded += c.instances
	}
	if recorded != 4 { // 8 + 4 twice, 4 + 4 with masks and without, and 7 + 5, where there is no room for more
		t.Errorf("%d graphs were recorded, want 4", recorded)
	}
}

// A step that scores gives the bits that LogProb gives of its logits, on a device that scores without them.
func TestScoringStep(t *testing.T) {
	want := ""
	for _, be := range []k.Backend{struct{ k.Backend }{simulated(t)}, simulated(t)} {
		b, draws := step{n: 9, position: 5, adapter: 1, masks: true}.batch()
		for i := range draws {
			draws[i].Score = true
			b.Targets = append(b.Targets, int32(5+2*i))
			for w := range 3 {
				b.Masks[3*i+w] = 1<<32 - 1
			}
			b.Masks[3*i] &^= 1 << (i % 4)
		}
		tokens, err := decoding(t, be).Step(b, draws)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(tokens); want == "" {
			want = got
		} else if got != want {
			t.Errorf("without logits %s, from logits %s", got, want)
		}
	}
}

// What is no plain decode step is not recorded.
func TestNoGraph(t *testing.T) {
	c := &counter{Device: newSimulator()}
	d, err := On(c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := decoding(t, d)
	for what, spoil := range map[string]func(*batch.Batch, []sample.Draw){
		"five runs":        func(b *batch.Batch, _ []sample.Draw) { b.Adapters[1], b.Adapters[3] = 1, 1 },
		"a row of top-k":   func(_ *batch.Batch, draws []sample.Draw) { draws[2].TopK = 5 },
		"a raw look":       func(_ *batch.Batch, draws []sample.Draw) { draws[1].Raw = true },
		"a row not wanted": func(b *batch.Batch, _ []sample.Draw) { b.Want, b.Temperatures = b.Want[:3], b.Temperatures[:3] },
	} {
		b, draws := step{n: 5, position: 0}.batch()
		spoil(b, draws)
		before := c.replays
		if tokens, err := r.Step(b, draws[:len(b.Want)]); err != nil || len(tokens) != len(b.Want) || c.replays != before {
			t.Errorf("%s: %v, %d replays (%v)", what, tokens, c.replays-before, err)
		}
	}
}

// A decode step allocates nothing, as a graph and as its operations.
func TestDecodeAllocatesNothing(t *testing.T) {
	d, _ := openEmpty(t, 1<<30)
	for what, be := range map[string]k.Backend{"a graph": d, "operations": struct{ k.Backend }{d}} {
		r := decoding(t, be)
		b, draws := step{n: 9, position: 5, adapter: 1, masks: true}.batch()
		var err error
		play := func() {
			if _, e := r.Step(b, draws); e != nil {
				err = e
			}
		}
		for range 2 {
			play()
			if n := testing.AllocsPerRun(20, play); n > 0 || err != nil {
				t.Errorf("a step of adapters %v as %s allocates %g times (%v)", b.Adapters, what, n, err)
			}
			b.Adapters[0] = 0 // the others keep theirs
		}
	}
}

// A graph whose adapter was taken away is freed.
func TestGraphsOfAdapters(t *testing.T) {
	freed := 0
	d, m := openEmpty(t, 1<<30)
	d.gpu = freeing{m, &freed}
	r := decoding(t, d)
	play := func(adapter int32) []engine.Token {
		b, draws := step{n: 3, position: 2, adapter: adapter}.batch()
		tokens, err := r.Step(b, draws)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Clone(tokens)
	}
	play(0)
	play(1)
	r.SetAdapter(1, nil)
	play(0)
	if freed != 1 {
		t.Errorf("%d graphs were freed, want 1", freed)
	}
	b, draws := step{n: 3, position: 2, adapter: 1}.batch()
	if _, err := r.Step(b, draws); err == nil {
		t.Error("an adapter that was taken away is used")
	}
}

type freeing struct {
	*empty
	freed *int
}

func (f freeing) FreeExec(driver.Exec) error {
	*f.freed++
	return nil
}
