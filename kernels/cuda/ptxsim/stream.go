package ptxsim

import (
	"time"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// work is one piece of what is queued. It runs at once, or each time the graph is replayed that it was recorded in.
type work struct {
	call, kernel string // a launch has both
	size         int    // of a copy
	run          func() error
}

// A stream is what a device has queued, and recorded.
type stream struct {
	capturing bool
	recorded  []work
	graphs    [][]work // by number, from 1; nil: freed
	execs     [][]work
	events    []*event
}

type event struct {
	at          time.Time
	made, freed bool
}

// queue runs a piece of work, or records it.
func (d *Device) queue(w work) error {
	if d.lost != nil {
		return d.lost
	}
	if d.capturing {
		d.recorded = append(d.recorded, w)
		return nil
	}
	return w.run()
}

func (d *Device) Sync() error {
	if d.capturing {
		return refuse("cuStreamSynchronize", codeCapture, "a graph is being recorded")
	}
	return d.lost
}

func (d *Device) NewEvent() (driver.Event, error) {
	d.events = append(d.events, &event{})
	return driver.Event(len(d.events)), d.lost
}

func (d *Device) event(call string, e driver.Event) (*event, error) {
	if e < 1 || int(e) > len(d.events) || d.events[e-1].freed {
		return nil, refuse(call, codeInvalid, "there is no event %d", e)
	}
	return d.events[e-1], d.lost
}

func (d *Device) Record(e driver.Event) error {
	ev, err := d.event("cuEventRecord", e)
	if err != nil {
		return err
	}
	return d.queue(work{call: "cuEventRecord", run: func() error {
		ev.at, ev.made = time.Now(), true
		return nil
	}})
}

func (d *Device) Wait(e driver.Event) error {
	_, err := d.event("cuEventSynchronize", e)
	return err
}

// Elapsed is the time that the simulation took.
func (d *Device) Elapsed(from, to driver.Event) (time.Duration, error) {
	a, err := d.event("cuEventElapsedTime", from)
	if err != nil {
		return 0, err
	}
	b, err := d.event("cuEventElapsedTime", to)
	if err != nil {
		return 0, err
	}
	if !a.made || !b.made {
		return 0, refuse("cuEventElapsedTime", codeInvalid, "an event has not been recorded")
	}
	return b.at.Sub(a.at), nil
}

func (d *Device) FreeEvent(e driver.Event) error {
	ev, err := d.event("cuEventDestroy", e)
	if err == nil {
		ev.freed = true
	}
	return err
}

func (d *Device) Begin() error {
	if d.capturing {
		return refuse("cuStreamBeginCapture", codeCapture, "a graph is being recorded")
	}
	d.capturing, d.recorded = true, nil
	return d.lost
}

func (d *Device) End() (driver.Graph, error) {
	if !d.capturing {
		return 0, refuse("cuStreamEndCapture", codeCapture, "no graph is being recorded")
	}
	d.capturing = false
	d.graphs = append(d.graphs, append([]work{}, d.recorded...))
	return driver.Graph(len(d.graphs)), d.lost
}

// held is what number n of a list holds.
func held(call, what string, all [][]work, n int) ([]work, error) {
	if n < 1 || n > len(all) || all[n-1] == nil {
		return nil, refuse(call, codeInvalid, "there is no %s %d", what, n)
	}
	return all[n-1], nil
}

func (d *Device) Instantiate(g driver.Graph) (driver.Exec, error) {
	ws, err := held("cuGraphInstantiate", "graph", d.graphs, int(g))
	if err != nil {
		return 0, err
	}
	d.execs = append(d.execs, ws)
	return driver.Exec(len(d.execs)), d.lost
}

func (d *Device) Update(e driver.Exec, g driver.Graph) error {
	const call = "cuGraphExecUpdate"
	old, err := held(call, "ready graph", d.execs, int(e))
	if err != nil {
		return err
	}
	ws, err := held(call, "graph", d.graphs, int(g))
	if err != nil {
		return err
	}
	if len(ws) != len(old) {
		return refuse(call, codeUpdate, "the graphs have %d and %d pieces of work", len(old), len(ws))
	}
	for i, w := range ws {
		if o := old[i]; o.call != w.call || o.kernel != w.kernel || o.size != w.size {
			return refuse(call, codeUpdate, "the graphs differ: piece %d is %s %s of %d bytes, and was %s %s of %d", i, w.call, w.kernel, w.size,
				o.call, o.kernel, o.size)
		}
	}
	d.execs[e-1] = ws
	return d.lost
}

func (d *Device) Replay(e driver.Exec) error {
	ws, err := held("cuGraphLaunch", "ready graph", d.execs, int(e))
	if err != nil {
		return err
	}
	for _, w := range ws {
		if err := d.queue(w); err != nil {
			return err
		}
	}
	return d.lost
}

func (d *Device) FreeGraph(g driver.Graph) error {
	_, err := held("cuGraphDestroy", "graph", d.graphs, int(g))
	if err == nil {
		d.graphs[g-1] = nil
	}
	return err
}

func (d *Device) FreeExec(e driver.Exec) error {
	_, err := held("cuGraphExecDestroy", "ready graph", d.execs, int(e))
	if err == nil {
		d.execs[e-1] = nil
	}
	return err
}
