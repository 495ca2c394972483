package serve

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/openai"
)

// exposed is what /metrics says.
func exposed(m *Metrics) string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(m.Registry(), promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func wantLines(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no %s in\n%s", line, text)
		}
	}
}

// Every answer is counted and timed once, and what the cache held of its prompt.
func TestMetrics(t *testing.T) {
	host := play(t, &script{texts: []string{"abcd", "xy"}}, plainTemplate)
	host.Metrics = NewMetrics()
	host.Metrics.Watch("base", host.Engine)
	c := &Catalog{}
	if err := c.Add(openai.Card{Name: "m"}, &Model{Host: host}); err != nil {
		t.Fatal(err)
	}
	h := &openai.Handler{Models: c}
	prompt := strings.Repeat("p", 40) // 41 tokens, of which two pages of 16 can be found again
	complete(t, h, `"prompt":"`+prompt+`","seed":0`)
	complete(t, h, `"prompt":"`+prompt+`","seed":0,"n":2,"max_tokens":3`) // abc by length, xy
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m, _ := c.Find("m")
	for range m.Answer(ctx, &openai.Call{Model: "m", Prompts: []openai.Prompt{{Text: prompt}}, N: 1, BestOf: 1, Seed: new(uint64(0))}) {
		cancel() // the client leaves after a token
	}
	wantLines(t, exposed(host.Metrics),
		`r2:request_success_total{finished_reason="stop",model_name="m"} 2`,
		`r2:request_success_total{finished_reason="length",model_name="m"} 1`,
		`r2:request_success_total{finished_reason="abort",model_name="m"} 1`,
		`r2:prompt_tokens_total{model_name="m"} 123`,        // three prompts
		`r2:prefix_cache_queries_total{model_name="m"} 164`, // of four answers
		`r2:prefix_cache_hits_total{model_name="m"} 96`,     // the first found nothing
		`r2:e2e_request_latency_seconds_count{model_name="m"} 4`,
		`r2:request_queue_time_seconds_count{model_name="m"} 4`,
		`r2:time_to_first_token_seconds_count{model_name="m"} 4`,
		`r2:request_prefill_time_seconds_count{model_name="m"} 4`,
		`r2:request_decode_time_seconds_count{model_name="m"} 4`,
		`r2:num_requests_waiting{model_name="base"} 0`,
		`r2:num_preemptions_total{model_name="base"} 0`,
	)
}

// The router's questions are counted by their traces.
func TestRouterMetrics(t *testing.T) {
	m := NewMetrics()
	traces := []struct {
		t   *router.Trace
		err error
	}{
		{&router.Trace{Steps: []router.Step{{Model: "small"}, {Model: "large"}}, Cost: router.Dollar / 4, Ledger: map[router.Stage]router.Totals{router.StagePlan: {Calls: 2}},
			Calls: []router.Call{{Model: "small", Error: "busy"}, {Model: "small"}}}, nil},
		{&router.Trace{Steps: []router.Step{{Model: "small"}}, Cost: router.Dollar / 2}, nil},
		{&router.Trace{Ledger: map[router.Stage]router.Totals{router.StagePlan: {Calls: 2}}}, &router.PlanError{Err: errors.New("no plan")}},
	}
	for _, tr := range traces {
		m.trace(tr.t, tr.err)
	}
	state := 2
	m.Breaker("large", func() int { return state })
	wantLines(t, exposed(m), `r2:pool_breaker_state{model="large"} 2`)
	state = 0
	wantLines(t, exposed(m), `r2:pool_breaker_state{model="large"} 0`, `r2:router_questions_total 3`, `r2:router_one_step_plans_total 1`, `r2:router_plan_repairs_total 2`, `r2:router_unparseable_total 1`,
		`r2:router_cost_usd_total 0.75`, `r2:router_allocations_total{model="small"} 2`, `r2:router_allocations_total{model="large"} 1`,
		`r2:router_pool_errors_total{model="small"} 1`, `r2:router_plan_length_sum 3`, `r2:router_plan_length_count 2`)
}

// The dashboard asks for nothing that is not exposed.
func TestDashboard(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "grafana.json"))
	if err != nil {
		t.Fatal(err)
	}
	host := play(t, &script{texts: []string{"ab"}}, plainTemplate)
	host.Metrics = NewMetrics()
	host.Metrics.Watch("base", host.Engine)
	c := &Catalog{}
	if err := c.Add(openai.Card{Name: "m"}, &Model{Host: host}); err != nil {
		t.Fatal(err)
	}
	complete(t, &openai.Handler{Models: c}, `"prompt":"p"`)
	host.Metrics.Breaker("small", func() int { return 0 })
	host.Metrics.trace(&router.Trace{Steps: []router.Step{{Model: "small"}}, Calls: []router.Call{{Model: "small", Error: "busy"}}}, nil)
	text := exposed(host.Metrics)
	names := regexp.MustCompile(`r2:[a-z0-9_]+`).FindAllString(string(b), -1)
	if len(names) < 20 {
		t.Errorf("only %d names", len(names))
	}
	for _, name := range names {
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("%s is not exposed", name)
		}
	}
}
