package cuda

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/engine/sample"
	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// An instant device takes no time, so that all of a step is the host's. It notes how long the host takes from one graph to the next,
// and of that from where it has to wait: a device that computes does nothing meanwhile.
type instant struct {
	*empty
	began, waited time.Time
	steps, gaps   []time.Duration
}

func (d *instant) Sync() error {
	d.waited = time.Now()
	return d.empty.Sync()
}

func (d *instant) Replay(e driver.Exec) error {
	now := time.Now()
	if len(d.steps) < cap(d.steps) && !d.began.IsZero() {
		gap := time.Duration(0)
		if d.waited.After(d.began) {
			gap = now.Sub(d.waited)
		}
		d.steps, d.gaps = append(d.steps, now.Sub(d.began)), append(d.gaps, gap)
	}
	d.began = now
	return d.empty.Replay(e)
}

// BenchmarkHost is what the host takes for a decode step of so many sequences, with a prompt of 1k that they share, each read by somebody: with
// steps begun behind each other, where the device waits for none of it, and one by one.
func BenchmarkHost(b *testing.B) {
	for _, n := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(n, " ahead"), func(b *testing.B) { decodeHost(b, n, func(d *Device) k.Backend { return d }) })
		b.Run(fmt.Sprint(n, " one by one"), func(b *testing.B) {
			decodeHost(b, n, func(d *Device) k.Backend {
				return struct {
					k.Backend
					k.Capturer
					k.BothReader
				}{d, d, d}
			})
		})
	}
}

func decodeHost(b *testing.B, n int, as func(*Device) k.Backend) {
	const pageSize, prompt, limit = 16, 1000, 1000
	d := &instant{empty: newEmpty(1 << 30), steps: make([]time.Duration, 0, 900), gaps: make([]time.Duration, 0, 900)}
	be, err := On(d, Options{})
	if err != nil {
		b.Fatal(err)
	}
	src := modeltest.Tiny("qwen2", 5)
	src.Config.Context = prompt + limit
	dec, err := model.Load(as(be), src.Config, src, model.Options{Context: prompt + limit, DType: weights.BF16, Convert: true})
	if err != nil {
		b.Fatal(err)
	}
	tokens, pages := max(n, 512), (prompt+limit)/pageSize
	run, err := runner.New(dec, model.Size{Tokens: tokens, Sequences: n, Wanted: n, Slice: 64, Pages: pages, PageSize: pageSize}, n*pages)
	if err != nil {
		b.Fatal(err)
	}
	eng := engine.New(run, kvcache.New(n*pages, pageSize), engine.Options{Vocab: src.Config.Vocab, Context: prompt + limit, TokensPerStep: tokens, MaxSequences: n})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var readers sync.WaitGroup
	for i := range n {
		readers.Go(func() {
			r := engine.Request{Prompt: make([]int32, prompt), Samples: 1, Limit: limit, Sampling: sample.Params{Temperature: 1, Seed: uint64(i)}}
			for _, err := range eng.Generate(ctx, r) {
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	time.Sleep(50 * time.Millisecond) // all of them ask before the first step
	go func() { done <- eng.Run(ctx) }()
	readers.Wait()
	stop()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	for unit, all := range map[string][]time.Duration{"µs/step": d.steps, "µs/gap": d.gaps} {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1e3, unit)
	}
}
