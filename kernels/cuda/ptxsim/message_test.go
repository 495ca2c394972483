package ptxsim

import (
	"encoding/binary"
	"strings"
	"testing"
)

// Of two blocks the one that comes last reads what each thread of the other has written, and has heard of it by a count.
const comeLast = `
	mov.u32 %r3, %ctaid.x;
	shl.b32 %r4, %r3, 8;
	cvt.u64.u32 %rd6, %r4;
	add.s64 %rd7, %rd5, %rd6;
	st.global.u32 [%rd7], %r2;
	bar.sync 0;
	setp.ne.s32 %p1, %r2, 0;
	@%p1 bra told;
	fence.acq_rel.gpu;
	atom.relaxed.gpu.global.add.u32 %r5, [%rd1], 1;
	fence.acq_rel.gpu;
	st.shared.u32 [dyn], %r5;
told:
	bar.sync 0;
	ld.shared.u32 %r5, [dyn];
	setp.ne.s32 %p2, %r5, 1;
	@%p2 bra end;
	xor.b32 %r6, %r3, 1;
	shl.b32 %r6, %r6, 8;
	xor.b32 %r7, %r2, 63;
	shl.b32 %r7, %r7, 2;
	add.s32 %r6, %r6, %r7;
	cvt.u64.u32 %rd8, %r6;
	add.s64 %rd9, %rd2, %rd8;
	ld.global.u32 %r8, [%rd9];
	add.s32 %r8, %r8, 1000;
	st.global.u32 [%rd9], %r8;
end:`

// Blocks are ordered by a message, all of it: the barrier, both fences, one address.
func TestMessages(t *testing.T) {
	for _, c := range []struct {
		name, cut, put string
		nth            int
		race           bool
	}{
		{name: "whole"},
		{name: "by membar", cut: "fence.acq_rel.gpu", put: "membar.gl"},
		{name: "no barrier before it", cut: "bar.sync 0;", race: true},
		{name: "no fence before it", cut: "fence.acq_rel.gpu;", race: true},
		{name: "no fence after it", cut: "fence.acq_rel.gpu;", nth: 1, race: true},
		{name: "a fence of the block alone", cut: "acq_rel.gpu", put: "acq_rel.cta", race: true},
		{name: "each at an address of its own", cut: "add.u32 %r5, [%rd1], 1", put: "add.u32 %r5, [%rd7+512], 1", race: true},
	} {
		for _, order := range Orders {
			t.Run(c.name+", "+order.String(), func(t *testing.T) {
				text := comeLast
				if c.cut != "" {
					parts := strings.SplitN(text, c.cut, c.nth+2)
					text = strings.Join(parts[:c.nth+1], c.cut) + c.put + parts[c.nth+1]
				}
				r := newRig(t, Options{Order: order}, module(text))
				raw := make([]byte, 1024)
				raw[512], raw[768] = 1, 1 // the counts of those that have their own: both come last
				a, b := r.memory(make([]byte, 4)), r.memory(raw)
				err := r.launch(2, 64, 16, a, b, 0)
				if c.race {
					if err == nil || !strings.Contains(err.Error(), "a race") {
						t.Errorf("the error reads %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				first := 0
				if order == LastFirst {
					first = 1
				}
				for i, raw := 0, r.read(b, 512); i < 128; i++ {
					want := i % 64
					if i/64 == first {
						want += 1000
					}
					if got := int(binary.LittleEndian.Uint32(raw[4*i:])); got != want {
						t.Fatalf("number %d is %d, not %d", i, got, want)
					}
				}
			})
		}
	}
}
