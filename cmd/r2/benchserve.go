package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/r2-reasoner/r2/bench"
	"github.com/r2-reasoner/r2/router/openai"
)

type benchServeCmd struct {
	URL      string        `required:"" placeholder:"URL" help:"Base of the API, such as http://127.0.0.1:8000/v1; any service of chat completions."`
	Name     string        `required:"" placeholder:"MODEL" help:"The model's name there."`
	KeyEnv   string        `placeholder:"VARIABLE" help:"The environment variable that holds the key."`
	Requests int           `default:"64" help:"Requests that count."`
	Warmup   int           `default:"2" help:"Requests before them, one after the other."`
	Clients  int           `default:"16" help:"Clients, each of which waits for its answer; with --rate the most requests under way, 0: no bound."`
	Rate     float64       `default:"0" help:"Requests a second that come by themselves, in a Poisson process; 0: clients send them."`
	Prompt   int           `default:"128" help:"Words of a prompt."`
	Prefix   int           `default:"0" help:"Words at its beginning that are the same in all."`
	Tokens   int           `default:"64" help:"Tokens drawn for each."`
	Timeout  time.Duration `default:"5m" help:"Of one request."`
	Seed     uint64        `default:"0" help:"Of the words, the draws and the times."`
	outputFlags
}

func (c *benchServeCmd) Help() string {
	return `Example, beside a server of another kind:

  r2 bench serve --url http://127.0.0.1:8000/v1 --name smollm2 --clients 16
  r2 bench serve --url http://127.0.0.1:8080/v1 --name any --clients 16

Shows the time to the first token, from one token to the next, and of a whole request, by quantiles, and what
the service reached in all.`
}

// Run measures.
func (c *benchServeCmd) Run(ctx context.Context) error {
	t := bench.Traffic{Requests: c.Requests, Clients: c.Clients, Rate: c.Rate, Prompt: c.Prompt, Prefix: c.Prefix, Tokens: c.Tokens, Seed: c.Seed}
	if err := t.Check(); err != nil {
		return usageError{err}
	}
	client, err := openai.NewClient(openai.Options{URL: c.URL, Model: c.Name, KeyEnv: c.KeyEnv, Timeout: c.Timeout, Fresh: true})
	if err != nil {
		return err
	}
	defer client.Close()
	if c.Warmup > 0 {
		warm := t
		warm.Requests, warm.Clients, warm.Rate, warm.Seed = c.Warmup, 1, 0, c.Seed+1<<32
		if c.Prefix > 0 {
			warm.Seed = c.Seed // what is shared gets into the cache
		}
		if _, err := bench.Serve(ctx, client, warm, nil); err != nil {
			return fmt.Errorf("%s: %w", c.URL, err)
		}
	}
	p := newProgress(c.outputFlags, "requests", c.Requests, 0)
	row, err := bench.Serve(ctx, client, t, func(n int) { p.step(n, "") })
	p.close()
	if err != nil {
		return fmt.Errorf("%s: %w", c.URL, err)
	}
	row.URL, row.Model = c.URL, c.Name
	return c.print(row)
}

func (c *benchServeCmd) print(r bench.ServeRow) error {
	if c.JSON {
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "milliseconds\tp50\tp95\tp99")
	for _, s := range []struct {
		name string
		bench.Spread
	}{{"first token", r.First}, {"token to token", r.Between}, {"request", r.Whole}} {
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\n", s.name, 1e3*s.P50, 1e3*s.P95, 1e3*s.P99)
	}
	w.Flush()
	fmt.Printf("%.1f tokens/s, %.2f requests/s: %s at %s, %s, %d requests, %d failed\n", r.Reached, r.Rate, r.Model, r.URL, r.Case, r.Requests, r.Failed)
	if r.Failed > 0 {
		c.note("the first failure: %s", r.Error)
	}
	return nil
}
