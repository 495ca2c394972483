package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/r2-reasoner/r2/router"
)

// Traffic is what clients send to a service of chat completions. With Rate they come by themselves, in a
// Poisson process (an open loop); without, each of Clients sends its next request when its last is answered
// (a closed loop).
type Traffic struct {
	Requests int
	Clients  int     // of a closed loop; the most under way in an open one, 0: no bound
	Rate     float64 // requests a second; 0: a closed loop
	Prompt   int     // words of a prompt, of which the first Prefix are the same in all
	Prefix   int
	Tokens   int // drawn for each, whatever the model thinks of it
	Seed     uint64
}

// Spread is a distribution by its quantiles, in seconds.
type Spread struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// A ServeRow is what the clients saw. A request's time runs from when it was due, so that a service which
// falls behind an open loop shows it.
type ServeRow struct {
	Bench    string  `json:"bench"` // serve
	Case     string  `json:"case"`
	URL      string  `json:"url"`
	Model    string  `json:"model"`
	Requests int     `json:"requests"`
	Failed   int     `json:"failed"`
	Error    string  `json:"error,omitempty"` // the first
	In       int     `json:"prompt_tokens"`
	Out      int     `json:"completion_tokens"`
	Seconds  float64 `json:"seconds"`
	Rate     float64 `json:"requests_per_second"`
	Reached  float64 `json:"tokens_per_second"` // drawn
	First    Spread  `json:"ttft_seconds"`      // to the first token
	Between  Spread  `json:"itl_seconds"`       // from one token to the next
	Whole    Spread  `json:"e2e_seconds"`       // of a request
}

// Check refuses traffic that means nothing.
func (t Traffic) Check() error {
	if t.Requests < 1 || t.Clients < 0 || t.Prompt < 1 || t.Tokens < 1 || t.Prefix < 0 || t.Prefix > t.Prompt ||
		!(t.Rate >= 0) || math.IsInf(t.Rate, 0) || t.Rate == 0 && t.Clients == 0 {
		return fmt.Errorf("%d requests of %d clients at a rate of %g, %d words of which %d are shared, %d tokens: "+
			"want positive numbers, a rate or clients, and a prefix within the prompt", t.Requests, t.Clients, t.Rate, t.Prompt, t.Prefix, t.Tokens)
	}
	return nil
}

// A served is what one request saw.
type served struct {
	first, whole time.Duration
	between      []time.Duration
	in, out      int
	err          error
}

// Serve sends the traffic to s and reports what came back. done, unless it is nil, is told of each answer.
// Requests that fail are counted and the first error is kept; when all fail, it is the error.
func Serve(ctx context.Context, s router.Streamer, t Traffic, done func(answered int)) (ServeRow, error) {
	if err := t.Check(); err != nil {
		return ServeRow{}, err
	}
	var mu sync.Mutex
	var all []served
	one := func(i int, due time.Time) {
		r := ask(ctx, s, t.request(i), due)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, r)
		if done != nil {
			done(len(all))
		}
	}
	start := time.Now()
	if t.Rate > 0 {
		t.open(ctx, one)
	} else {
		t.closed(ctx, one)
	}
	if err := ctx.Err(); err != nil {
		return ServeRow{}, err
	}
	return t.row(all, time.Since(start))
}

func (t Traffic) closed(ctx context.Context, one func(i int, due time.Time)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(t.Clients, t.Requests) {
		wg.Go(func() {
			for i := range next {
				one(i, time.Now())
			}
		})
	}
	for i := 0; i < t.Requests && ctx.Err() == nil; i++ {
		next <- i
	}
	close(next)
	wg.Wait()
}

func (t Traffic) open(ctx context.Context, one func(i int, due time.Time)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	var room chan struct{}
	if t.Clients > 0 {
		room = make(chan struct{}, t.Clients)
	}
	r := rand.New(rand.NewPCG(t.Seed, 2))
	due := time.Now()
	for i := range t.Requests {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(due)):
		}
		if at := due; room != nil {
			room <- struct{}{}
			wg.Go(func() { one(i, at); <-room })
		} else {
			wg.Go(func() { one(i, at) })
		}
		due = due.Add(time.Duration(r.ExpFloat64() / t.Rate * float64(time.Second)))
	}
}

// words are common ones, so that a word is about a token for any vocabulary of English.
var words = strings.Fields("the of and to in is that it was for on are as with his they at be this from have or by one had not but what all were when we there can an your which their said if do will each about how up out them then she many some so these would other into has more her two like him see time could no make than first been its who now people my made over did down only way find use may water long little very after words called just where most know")

// request is number i of the traffic: chats of random words, the same for the same seed.
func (t Traffic) request(i int) router.Request {
	shared, own := rand.New(rand.NewPCG(t.Seed, 0)), rand.New(rand.NewPCG(t.Seed, 3+uint64(i)))
	text := make([]string, t.Prompt)
	for j := range text {
		r := own
		if j < t.Prefix {
			r = shared
		}
		text[j] = words[r.IntN(len(words))]
	}
	return router.Request{Messages: []router.Message{{Role: "user", Content: strings.Join(text, " ")}},
		Limit: t.Tokens, IgnoreEOS: true, Temperature: new(1.0), Seed: new(t.Seed + uint64(i))}
}

// ask sends one request and watches its answer come.
func ask(ctx context.Context, s router.Streamer, r router.Request, due time.Time) (a served) {
	var last time.Time
	for d, err := range s.Stream(ctx, r) {
		now := time.Now()
		if err != nil {
			a.err = err
			return a
		}
		if d.Done != nil {
			a.in, a.out, a.whole = d.Done.In, d.Done.Out, now.Sub(due)
			continue
		}
		if last.IsZero() {
			a.first = now.Sub(due)
		} else {
			a.between = append(a.between, now.Sub(last))
		}
		last = now
	}
	if last.IsZero() && a.err == nil {
		a.err = errors.New("an answer without text")
	}
	return a
}

// row sums up.
func (t Traffic) row(all []served, took time.Duration) (ServeRow, error) {
	row := ServeRow{Bench: "serve", Case: t.String(), Requests: len(all), Seconds: took.Seconds()}
	var first, between, whole []float64
	var failure error
	for _, a := range all {
		row.In, row.Out = row.In+a.in, row.Out+a.out
		if a.err != nil {
			row.Failed++
			if failure == nil {
				failure, row.Error = a.err, a.err.Error()
			}
			continue
		}
		first, whole = append(first, a.first.Seconds()), append(whole, a.whole.Seconds())
		for _, d := range a.between {
			between = append(between, d.Seconds())
		}
	}
	if row.Failed == len(all) {
		return row, fmt.Errorf("all %d requests failed, the first: %w", len(all), failure)
	}
	row.Rate, row.Reached = float64(len(all)-row.Failed)/row.Seconds, float64(row.Out)/row.Seconds
	row.First, row.Between, row.Whole = spread(first), spread(between), spread(whole)
	return row, nil
}

// String says what the traffic is.
func (t Traffic) String() string {
	how := fmt.Sprintf("%d clients", t.Clients)
	if t.Rate > 0 {
		how = fmt.Sprintf("%g requests/s", t.Rate)
	}
	prefix := ""
	if t.Prefix > 0 {
		prefix = fmt.Sprintf(" (%d shared)", t.Prefix)
	}
	return fmt.Sprintf("%s, %d words%s, %d tokens", how, t.Prompt, prefix, t.Tokens)
}

// spread is the quantiles of x by the nearest rank: the least that is at least as large as the share p of all.
func spread(x []float64) Spread {
	if len(x) == 0 {
		return Spread{}
	}
	slices.Sort(x)
	at := func(p float64) float64 { return x[max(0, int(math.Ceil(p*float64(len(x))))-1)] }
	return Spread{at(0.5), at(0.95), at(0.99)}
}
