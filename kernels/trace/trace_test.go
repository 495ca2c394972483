package trace_test

import (
	"strings"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/ref"
	"github.com/r2-reasoner/r2/kernels/trace"
)

func TestStats(t *testing.T) {
	d := trace.New(ref.New())
	x, w := d.New(k.F32, 3, 8), d.Load(k.Format{Type: k.BF16}, 5, 8, make([]byte, 80))
	out := d.New(k.F32, 3, 5)
	for range 2 {
		d.Linear(out, x, w, k.Tensor{})
	}
	d.Fill(out.Columns(1, 2), 1)
	if err := d.Read(make([]byte, 60), out); err != nil {
		t.Fatal(err)
	}
	want := map[string]trace.Stat{
		"Linear": {Calls: 2, Bytes: 2 * (4*3*5 + 4*3*8 + 2*5*8)},
		"Fill":   {Calls: 1, Bytes: 4 * 3 * 2},
		"Read":   {Calls: 1, Bytes: 60},
	}
	stats := d.Stats()
	if len(stats) != len(want) {
		t.Errorf("%d operations, want %d", len(stats), len(want))
	}
	for i, s := range stats {
		if w := want[s.Op]; s.Calls != w.Calls || s.Bytes != w.Bytes || s.Time <= 0 {
			t.Errorf("%v (%d bytes), want %+v", s, s.Bytes, w)
		}
		if i > 0 && s.Time > stats[i-1].Time {
			t.Errorf("%v stands after %v", s, stats[i-1])
		}
	}
	if d.Reset(); len(d.Stats()) > 0 {
		t.Errorf("after Reset: %v", d.Stats())
	}
}

// What failed is reported by the next Read or Sync though the trace has waited for it, and what was
// queued after it is neither done nor counted.
func TestFailureIsKept(t *testing.T) {
	d := trace.New(ref.New())
	logits, ids, lp, lse := d.New(k.F32, 1, 4), d.New(k.I32, 1, 1), d.New(k.F32, 1, 1), d.New(k.F32, 1, 1)
	d.LogProb(lp, lse, logits, ids, k.Dist{Mask: ids}) // a mask of zeros
	d.Fill(logits, 1)
	if err := d.Sync(); err == nil || !strings.Contains(err.Error(), "LogProb") {
		t.Errorf("Sync: %v, want LogProb's failure", err)
	}
	if err := d.Sync(); err != nil {
		t.Errorf("the failure came back: %v", err)
	}
	if v := ref.Row(logits, 0)[0]; v != 0 || len(d.Stats()) != 1 {
		t.Errorf("Fill after a failure was done (%v) or counted: %v", v, d.Stats())
	}
}
