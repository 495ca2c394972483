package cuda

import (
	"errors"
	"fmt"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// A Graph is a recording of launches.
type Graph struct {
	d  *Device
	at driver.Exec
}

// Capture records the operations that f queues. f runs twice: first for the scratch memory its operations
// need, launching nothing. It must not Read, Sync, New, Free or Write from the host.
func (d *Device) Capture(f func()) (k.Graph, error) {
	if d.err != nil {
		return nil, d.Sync()
	}
	d.recorded = true
	d.queue(f, true)
	if d.err != nil {
		return nil, d.Sync()
	}
	d.send()
	if err := d.gpu.Sync(); err != nil {
		return nil, fmt.Errorf("cuda: capture: %w", err)
	}
	if err := d.gpu.Begin(); err != nil {
		return nil, fmt.Errorf("cuda: capture: %w", err)
	}
	d.queue(f, false)
	recorded, err := d.gpu.End()
	if d.err != nil {
		return nil, d.Sync()
	}
	if err != nil {
		return nil, fmt.Errorf("cuda: capture: %w", err)
	}
	at, err := d.gpu.Instantiate(recorded)
	if err = errors.Join(err, d.gpu.FreeGraph(recorded)); err != nil {
		return nil, fmt.Errorf("cuda: capture: %w", err)
	}
	return &Graph{d, at}, nil
}

// queue runs f as a recording.
func (d *Device) queue(f func(), dry bool) {
	d.recording, d.dry = true, dry
	defer func() { d.recording, d.dry = false, false }()
	f()
}

// Launch queues all of the recording.
func (g *Graph) Launch() {
	if g.d.send(); g.d.err == nil {
		g.d.check("launch a graph", g.d.gpu.Replay(g.at))
	}
}

// Free gives back the recording.
func (g *Graph) Free() { g.d.check("free a graph", g.d.gpu.FreeExec(g.at)) }
