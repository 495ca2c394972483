package cuda

import (
	"math/rand/v2"
	"slices"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// A counter counts the calls that a step should make few of.
type counter struct {
	driver.Device
	uploads, downloads, syncs, launches, replays, instances int
}

func (c *counter) Instantiate(g driver.Graph) (driver.Exec, error) {
	c.instances++
	return c.Device.Instantiate(g)
}

func (c *counter) Upload(to uint64, from []byte) error {
	c.uploads++
	return c.Device.Upload(to, from)
}

func (c *counter) Download(to []byte, from uint64) error {
	c.downloads++
	return c.Device.Download(to, from)
}

func (c *counter) Sync() error {
	c.syncs++
	return c.Device.Sync()
}

func (c *counter) Launch(f driver.Function, l driver.Launch, args *driver.Args) error {
	c.launches++
	return c.Device.Launch(f, l, args)
}

func (c *counter) Replay(e driver.Exec) error {
	c.replays++
	return c.Device.Replay(e)
}

// Whatever is written before a launch goes up in one copy, and two tensors come back in one.
func TestOneCopyEachWay(t *testing.T) {
	c := &counter{Device: newSimulator()}
	d, err := On(c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	x, ids, y := d.New(k.F32, 3, 50), d.New(k.I32, 9, 1), d.New(k.F32, 1, 7)
	*c = counter{Device: c.Device}
	for i := range 3 {
		d.Write(x.Slice(i, 1).Columns(i, 40), floatBytes(slices.Repeat([]float32{float32(i + 1)}, 40)))
	}
	d.Write(ids, intBytes([]int32{9, 8, 7, 6, 5, 4, 3, 2, 1}))
	d.Fill(y, 2)
	got := make([]byte, 4*(9+7))
	if err := d.ReadBoth(got, ids, y); err != nil {
		t.Fatal(err)
	}
	if want := append(intBytes([]int32{9, 8, 7, 6, 5, 4, 3, 2, 1}), floatBytes(slices.Repeat([]float32{2}, 7))...); !slices.Equal(got, want) {
		t.Errorf("what came back is % x, want % x", got, want)
	}
	if c.uploads != 1 || c.downloads != 1 || c.syncs != 1 || c.launches != 3 {
		t.Errorf("%d uploads, %d downloads, %d syncs and %d launches; want 1, 1, 1 and 3", c.uploads, c.downloads, c.syncs, c.launches)
	}
	want := make([]float32, 150)
	for i := range 3 {
		for j := range 40 {
			want[50*i+i+j] = float32(i + 1)
		}
	}
	if got := bits(t, d, x); !slices.Equal(got, floatBytes(want)) {
		t.Error("the pieces are not where they belong")
	}
}

// Writes take effect in their order: over one another, after what was launched before them, and however many.
func TestWritesInOrder(t *testing.T) {
	d := simulated(t)
	g := rand.New(rand.NewPCG(7, 8))
	const n = 40_000
	x, y := d.New(k.F32, 1, n), d.New(k.F32, 1, n)
	want, copied := make([]float32, n), make([]float32, n)
	for i := range 2 * mostPieces {
		switch {
		case i%1000 == 999:
			d.Copy(y, x)
			copy(copied, want)
		default:
			at, most := g.IntN(n), 30
			if i%500 == 0 {
				most = n // more than a piece
			}
			vs := make([]float32, 1+g.IntN(min(most, n-at)))
			for j := range vs {
				vs[j] = float32(i)
			}
			copy(want[at:], vs)
			d.Write(x.Columns(at, len(vs)), floatBytes(vs))
		}
	}
	for _, c := range []struct {
		what string
		t    k.Tensor
		want []float32
	}{{"what was written", x, want}, {"what was copied in between", y, copied}} {
		if !slices.Equal(bits(t, d, c.t), floatBytes(c.want)) {
			t.Errorf("%s differs", c.what)
		}
	}
}

// A write before a failure counts, one after it does not.
func TestWriteAndFailure(t *testing.T) {
	d := simulated(t)
	x, table := d.New(k.F32, 2, 4), d.New(k.F32, 5, 4)
	d.Write(x.Slice(0, 1), floatBytes([]float32{1, 2, 3, 4}))
	d.Gather(d.New(k.F32, 1, 4), table, column32(d, 99))
	d.Write(x.Slice(1, 1), floatBytes([]float32{1, 2, 3, 4}))
	d.Write(x.Slice(1, 1), floatBytes([]float32{5, 6, 7, 8}))
	d.Add(x, x, x)
	if err := d.Read(make([]byte, 32), x); err == nil || err.Error() != "cuda: Gather: row 0: an index is outside its table" {
		t.Errorf("the failure reads %v", err)
	}
	if got := bits(t, d, x); !slices.Equal(got[:16], floatBytes([]float32{1, 2, 3, 4})) {
		t.Errorf("after the failure there is % x", got)
	}
}
