package main

import (
	"fmt"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// A progress shows how far long work has come: a bar with rate and time left on a terminal, a line
// now and then elsewhere, nothing with -q.
type progress struct {
	name        string
	total, from int
	begin, last time.Time
	bar         *progressbar.ProgressBar
	quiet       bool
}

func newProgress(o outputFlags, name string, total, from int) *progress {
	p := &progress{name: name, total: total, from: from, begin: time.Now(), last: time.Now(), quiet: o.Quiet}
	if !o.Quiet && term.IsTerminal(int(os.Stderr.Fd())) {
		p.bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription(name),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetPredictTime(true),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(20))
		p.bar.Set(from)
	}
	return p
}

// step says that done of total are done, and how it goes.
func (p *progress) step(done int, say string) {
	switch {
	case p.quiet:
	case p.bar != nil:
		p.bar.Describe(p.name + "  " + say)
		p.bar.Set(done)
	case time.Since(p.last) > 5*time.Second || done == p.total:
		p.last = time.Now()
		left := time.Duration(float64(time.Since(p.begin)) / float64(max(1, done-p.from)) * float64(p.total-done))
		fmt.Fprintf(os.Stderr, "%s %d/%d  %s  %s left\n", p.name, done, p.total, say, left.Round(time.Second))
	}
}

func (p *progress) close() {
	if p.bar != nil {
		p.bar.Close()
	}
}
