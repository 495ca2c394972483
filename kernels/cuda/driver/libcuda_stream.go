package driver

import (
	"fmt"
	"time"
	"unsafe"
)

func (g *libcuda) Sync() error { return g.step("cuStreamSynchronize", g.synchronizer, g.stream) }

func (g *libcuda) NewEvent() (e Event, err error) {
	err = g.call("cuEventCreate", uintptr(unsafe.Pointer(&e)), 0)
	return e, err
}

func (g *libcuda) Record(e Event) error    { return g.call("cuEventRecord", uintptr(e), g.stream) }
func (g *libcuda) Wait(e Event) error      { return g.call("cuEventSynchronize", uintptr(e)) }
func (g *libcuda) FreeEvent(e Event) error { return g.call("cuEventDestroy_v2", uintptr(e)) }

func (g *libcuda) Elapsed(from, to Event) (time.Duration, error) {
	var ms float32
	err := g.call("cuEventElapsedTime", uintptr(unsafe.Pointer(&ms)), uintptr(from), uintptr(to))
	return time.Duration(float64(ms) * float64(time.Millisecond)), err
}

func (g *libcuda) Begin() error { return g.call("cuStreamBeginCapture_v2", g.stream, threadLocal) }

func (g *libcuda) End() (r Graph, err error) {
	err = g.call("cuStreamEndCapture", g.stream, uintptr(unsafe.Pointer(&r)))
	return r, err
}

func (g *libcuda) Instantiate(r Graph) (e Exec, err error) {
	err = g.call("cuGraphInstantiateWithFlags", uintptr(unsafe.Pointer(&e)), uintptr(r), 0)
	return e, err
}

// updateResult is CUgraphExecUpdateResultInfo.
type updateResult struct {
	result     int32
	node, from uintptr
}

func (g *libcuda) Update(e Exec, r Graph) error {
	var why updateResult
	if err := g.call("cuGraphExecUpdate_v2", uintptr(e), uintptr(r), uintptr(unsafe.Pointer(&why))); err != nil {
		return fmt.Errorf("%w (the graphs differ: reason %d)", err, why.result)
	}
	return nil
}

func (g *libcuda) Replay(e Exec) error {
	return g.step("cuGraphLaunch", g.replayer, uintptr(e), g.stream)
}

func (g *libcuda) FreeGraph(r Graph) error { return g.call("cuGraphDestroy", uintptr(r)) }
func (g *libcuda) FreeExec(e Exec) error   { return g.call("cuGraphExecDestroy", uintptr(e)) }
