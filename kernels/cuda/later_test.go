package cuda

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
	"github.com/r2-reasoner/r2/model/batch"
)

// A lazy device does nothing that is queued before it is waited for, and then no more than it must: what the host changes or
// reads too early shows.
type lazy struct {
	driver.Device
	queue []func() error
	marks map[driver.Event]int // how much of the queue comes before an event
	waits int                  // for an event, when more was queued behind it
}

func (d *lazy) later(f func() error) error {
	d.queue = append(d.queue, f)
	return nil
}

// come runs the first n of what is queued.
func (d *lazy) come(n int) error {
	for _, f := range d.queue[:n] {
		if err := f(); err != nil {
			return err
		}
	}
	d.queue = slices.Delete(d.queue, 0, n)
	for e := range d.marks {
		d.marks[e] = max(0, d.marks[e]-n)
	}
	return nil
}

func (d *lazy) all() error { return d.come(len(d.queue)) }

func (d *lazy) Upload(to uint64, from []byte) error {
	return d.later(func() error { return d.Device.Upload(to, from) })
}
func (d *lazy) Download(to []byte, from uint64) error {
	return d.later(func() error { return d.Device.Download(to, from) })
}
func (d *lazy) Set(at uint64, v byte, n int) error {
	return d.later(func() error { return d.Device.Set(at, v, n) })
}
func (d *lazy) Launch(f driver.Function, l driver.Launch, args *driver.Args) error {
	mine := driver.Args{Words: slices.Clone(args.Words), Starts: slices.Clone(args.Starts)}
	return d.later(func() error { return d.Device.Launch(f, l, &mine) })
}
func (d *lazy) Replay(e driver.Exec) error {
	return d.later(func() error { return d.Device.Replay(e) })
}
func (d *lazy) Record(e driver.Event) error {
	d.marks[e] = len(d.queue)
	return nil
}
func (d *lazy) Wait(e driver.Event) error {
	n := d.marks[e]
	if n < len(d.queue) {
		d.waits++
	}
	return d.come(n)
}
func (d *lazy) Sync() error {
	if err := d.all(); err != nil {
		return err
	}
	return d.Device.Sync()
}
func (d *lazy) Begin() error {
	if err := d.all(); err != nil {
		return err
	}
	return d.Device.Begin()
}

// End ends a recording, which is what has been queued since Begin.
func (d *lazy) End() (driver.Graph, error) {
	if err := d.all(); err != nil {
		return 0, err
	}
	return d.Device.End()
}

// onLazy is a backend of a lazy device.
func onLazy(t *testing.T) (*Device, *lazy) {
	t.Helper()
	slow := &lazy{Device: newSimulator(), marks: map[driver.Event]int{}}
	d, err := On(slow, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d, slow
}

// A link is a step of a line of them: the rows of the step before that go on, each at the position the step is at.
type link struct{ rows []int }

// play runs a line of steps, each begun behind the one before if ahead, and returns what each drew. Sequences from base on have the
// adapter.
func play(t *testing.T, r engine.Pipeline, links []link, base int, masks, ahead bool) (all []string) {
	t.Helper()
	whose := make([]int, len(links[0].rows)) // sequence of each row
	for i := range whose {
		whose[i] = i
	}
	var before []engine.Token
	begun := make([]int, 0, 2)
	for position := 0; position <= len(links); position++ {
		if position < len(links) {
			rows := links[position].rows
			b, draws := chosen(rows, whose, step{n: 12, position: position, masks: masks})
			for i, row := range rows {
				b.Adapters[i] = int32(min(1, whose[row]/base))
			}
			for i, row := range rows {
				switch {
				case position > 0 && ahead:
					b.Tokens[i] = ^int32(row)
				case position > 0:
					b.Tokens[i] = before[row].ID
				}
			}
			next := make([]int, len(rows))
			for i, row := range rows {
				next[i] = whose[row]
			}
			whose = next
			if !ahead {
				tokens, err := r.Step(b, draws)
				if err != nil {
					t.Fatal(err)
				}
				before = slices.Clone(tokens)
				all = append(all, fmt.Sprint(tokens))
				continue
			}
			if !r.Begin(b, draws) {
				t.Fatalf("step %d was not begun", position)
			}
			begun = append(begun, position)
		}
		if ahead && (len(begun) == 2 || position == len(links)) {
			tokens, err := r.Finish()
			if err != nil {
				t.Fatal(err)
			}
			all, begun = append(all, fmt.Sprint(tokens)), begun[1:]
		}
	}
	return all
}

// chosen is the part of a step of sequences that rows, of those that are whose, have.
func chosen(rows, whose []int, s step) (*batch.Batch, []sample.Draw) {
	all, draws := s.batch()
	b := &batch.Batch{Starts: []int32{0}}
	var mine []sample.Draw
	for i, row := range rows {
		q := whose[row]
		b.Tokens, b.Positions = append(b.Tokens, all.Tokens[q]), append(b.Positions, all.Positions[q])
		b.Starts, b.Lengths, b.Pages = append(b.Starts, int32(i+1)), append(b.Lengths, all.Lengths[q]), append(b.Pages, all.Pages[q])
		b.Slots, b.Adapters, b.Want = append(b.Slots, all.Slots[q]), append(b.Adapters, all.Adapters[q]), append(b.Want, int32(i))
		b.Temperatures = append(b.Temperatures, all.Temperatures[q])
		if s.masks {
			b.Masks = append(b.Masks, all.Masks[3*q:3*q+3]...)
		}
		mine = append(mine, draws[q])
	}
	return b, mine
}

// links lose rows in the middle and at both ends.
var links = []link{{[]int{0, 1, 2, 3, 4, 5, 6}}, {[]int{0, 1, 2, 3, 4, 5, 6}}, {[]int{0, 2, 3, 4, 6}}, {[]int{1, 2, 4}}, {[]int{2}}}

// Steps that are begun behind each other draw what they draw one by one, on a device that takes its time for everything.
func TestStepsAhead(t *testing.T) {
	for base, masks := range map[int]bool{12: true, 3: false} {
		d, slow := onLazy(t)
		want := play(t, decoding(t, simulated(t)), links, base, masks, false)
		got := play(t, decoding(t, d), links, base, masks, true)
		if !slices.Equal(got, want) {
			t.Errorf("the adapter from %d on: ahead\n%v, one by one\n%v", base, got, want)
		}
		if slow.waits != len(links)-1 {
			t.Errorf("%d of %d steps were waited for with another behind them", slow.waits, len(links))
		}
	}
}

// A step that fails is told in its turn, with what is behind it, and the next one is well.
func TestStepsAheadFail(t *testing.T) {
	for bad := range 2 {
		d, _ := onLazy(t)
		r := decoding(t, d)
		for position := range 2 {
			b, draws := step{n: 3, position: position}.batch()
			if position == bad {
				b.Pages[1][0] = 10_000
			}
			if position > 0 {
				b.Tokens[0], b.Tokens[1], b.Tokens[2] = ^int32(0), ^int32(1), ^int32(2)
			}
			if !r.Begin(b, draws) {
				t.Fatal("not begun")
			}
		}
		b, draws := step{n: 3, position: 2}.batch()
		if r.Begin(b, draws) {
			t.Error("a third step was begun")
		}
		var err error
		for position := range 2 {
			_, err = r.Finish()
			if (err != nil) != (position >= bad) {
				t.Fatalf("step %d is bad; step %d: %v", bad, position, err)
			}
			if err != nil && position == bad && !strings.Contains(err.Error(), "row 1: a page of the sequence is outside the keys") {
				t.Errorf("the failure reads %v", err)
			}
		}
		b, draws = step{n: 3, position: 0}.batch()
		want, err := decoding(t, simulated(t)).Step(b, draws)
		if err != nil {
			t.Fatal(err)
		}
		r.Begin(b, draws)
		if got, err := r.Finish(); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("after it %v, want %v (%v)", got, want, err)
		}
	}
}

// Nothing is allocated by steps behind each other.
func TestStepsAheadAllocateNothing(t *testing.T) {
	d, _ := openEmpty(t, 1<<30)
	r := decoding(t, d)
	b, draws := step{n: 9, position: 5, adapter: 1}.batch()
	if !r.Begin(b, draws) {
		t.Fatal("not begun")
	}
	for i := range b.Tokens {
		b.Tokens[i] = ^int32(i)
	}
	var err error
	one := func() {
		if !r.Begin(b, draws) {
			t.Fatal("not begun")
		}
		if _, e := r.Finish(); e != nil {
			err = e
		}
	}
	one()
	if n := testing.AllocsPerRun(20, one); n > 0 || err != nil {
		t.Errorf("a step allocates %g times (%v)", n, err)
	}
}
