package probe

import (
	"errors"
	"slices"
	"time"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// Bandwidth is the bytes a second, read and written, of copies within the device of so many bytes: the median
// of five, after one that does not count.
func Bandwidth(d driver.Device, bytes int) (float64, error) {
	from, err := d.Alloc(bytes)
	if err != nil {
		return 0, err
	}
	defer d.Free(from)
	to, err := d.Alloc(bytes)
	if err != nil {
		return 0, err
	}
	defer d.Free(to)
	if err := d.Set(from, 0x3c, bytes); err != nil {
		return 0, err
	}
	took, err := median(d, func() error { return d.Copy(to, from, bytes) })
	return 2 * float64(bytes) / took.Seconds(), err
}

// Rate is the floating-point operations a second of mma.sync on bf16 in registers: what kernels that use that
// instruction can reach. On sm_90 wgmma reaches more.
func Rate(d driver.Device, rounds int) (float64, error) {
	l, err := load(d)
	if err != nil {
		return 0, err
	}
	defer l.close()
	blocks, err := d.Attribute(driver.Multiprocessors)
	if err != nil {
		return 0, err
	}
	blocks *= 4
	out, err := d.Alloc(blocks * 256 * 4)
	if err != nil {
		return 0, err
	}
	defer d.Free(out)
	took, err := median(d, func() error { return l.launch("probe_rate", blocks, 256, out, uint64(rounds)) })
	const each = 2 * 16 * 8 * 16 // of one instruction
	return float64(blocks) * 8 * float64(rounds) * 16 * each / took.Seconds(), err
}

// median times five runs of f on the device, after one that does not count.
func median(d driver.Device, f func() error) (time.Duration, error) {
	var at [2]driver.Event
	for i := range at {
		e, err := d.NewEvent()
		if err != nil {
			return 0, err
		}
		defer d.FreeEvent(e)
		at[i] = e
	}
	var all []time.Duration
	for range 6 {
		if err := errors.Join(d.Record(at[0]), f(), d.Record(at[1]), d.Wait(at[1])); err != nil {
			return 0, err
		}
		took, err := d.Elapsed(at[0], at[1])
		if err != nil {
			return 0, err
		}
		all = append(all, took)
	}
	all = all[1:]
	slices.Sort(all)
	return max(all[len(all)/2], 1), nil
}
