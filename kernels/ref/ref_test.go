package ref_test

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/ref"
)

// tensor is a tensor of rows×cols with the values of vs, which it takes in order.
func tensor(d *ref.Device, typ k.DType, rows, cols int, vs ...float64) k.Tensor {
	t := d.New(typ, rows, cols)
	for i, v := range vs {
		ref.Row(t, i/cols)[i%cols] = v
	}
	return t
}

func TestLoadDecodes(t *testing.T) {
	for _, c := range []struct {
		typ  k.DType
		bits uint32
		want float64
	}{
		{k.F32, 0x40490fdb, 3.1415927410125732421875},
		{k.BF16, 0x4049, 3.140625},
		{k.BF16, 0xff80, math.Inf(-1)},
		{k.F16, 0x4248, 3.140625},
		{k.F16, 0x0001, 0x1p-24},
		{k.F16, 0xfbff, -65504},
		{k.F16, 0x7c00, math.Inf(1)},
	} {
		d := ref.New()
		cell := binary.LittleEndian.AppendUint32(nil, c.bits)[:c.typ.Size()]
		zero := make([]byte, c.typ.Size())
		w := d.Load(k.Format{Type: c.typ}, 3, 1, zero, append(append([]byte{}, cell...), zero...))
		out := d.New(k.F32, 1, 1)
		d.Embed(out, w, tensor(d, k.I32, 1, 1, 1))
		if got := ref.Row(out, 0)[0]; got != c.want {
			t.Errorf("%v %#x is %v, want %v", c.typ, c.bits, got, c.want)
		}
	}
}

func TestWriteReadViews(t *testing.T) {
	d := ref.New()
	for _, typ := range []k.DType{k.F32, k.I32} {
		whole := d.New(typ, 3, 4)
		src := []byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff} // 1, -1 as I32
		if typ == k.F32 {
			src = []byte{0, 0, 0x80, 0x3f, 0, 0, 0x80, 0xbf} // 1, -1 as F32
		}
		d.Write(whole.Slice(1, 2).Columns(2, 1), src)
		if got := []float64{ref.Row(whole, 1)[2], ref.Row(whole, 2)[2]}; got[0] != 1 || got[1] != -1 {
			t.Errorf("%v: wrote %v, want 1, -1", typ, got)
		}
		sum := 0.0
		for i := range 3 {
			for _, v := range ref.Row(whole, i) {
				sum += math.Abs(v)
			}
		}
		if sum != 2 {
			t.Errorf("%v: Write touched more than its view", typ)
		}
		got := make([]byte, 8)
		if err := d.Read(got, whole.Slice(1, 2).Columns(2, 1)); err != nil || string(got) != string(src) {
			t.Errorf("%v: read % x, %v, want % x", typ, got, err, src)
		}
	}
}

func TestFailureIsKeptAndCleared(t *testing.T) {
	d := &ref.Device{}
	logits := tensor(d, k.F32, 2, 2, 0, 0, 0, math.NaN())
	lp, lse, ids := d.New(k.F32, 2, 1), d.New(k.F32, 2, 1), d.New(k.I32, 2, 1)
	d.LogProb(lp, lse, logits, ids, k.Dist{})
	d.Fill(logits, 1)
	if v := ref.Row(logits, 0)[0]; v != 0 {
		t.Errorf("Fill after a failure wrote %v", v)
	}
	err := d.Sync()
	if err == nil || !strings.Contains(err.Error(), "LogProb") || !strings.Contains(err.Error(), "row 1") {
		t.Errorf("the failure reads %v; want LogProb and row 1", err)
	}
	if err := d.Sync(); err != nil {
		t.Errorf("the failure came back: %v", err)
	}
}
