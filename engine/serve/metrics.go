package serve

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/openai"
)

// Metrics are what a server counts and times, by vLLM's names with r2: for vllm:, and the router's own. A nil *Metrics
// counts nothing.
type Metrics struct {
	registry *prometheus.Registry

	prompt, generation, queries, hits *prometheus.CounterVec   // tokens
	success                           *prometheus.CounterVec   // by finished_reason
	first, between, whole             *prometheus.HistogramVec // seconds
	queue, prefill, decode            *prometheus.HistogramVec

	questions, oneStep, repairs, unparseable, cost prometheus.Counter
	allocated, poolErrors                          *prometheus.CounterVec // by model
	planLength                                     prometheus.Histogram
}

// Buckets of times: a third more than double each, from a millisecond of a small model to minutes of a long answer.
var (
	short = prometheus.ExponentialBuckets(0.001, 2.4, 12) // to 15 s
	long  = prometheus.ExponentialBuckets(0.01, 2.6, 12)  // to 6 min
)

// NewMetrics makes them, all at zero.
func NewMetrics() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "r2:" + name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "r2:" + name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(h)
		return h
	}
	const model = "model_name"
	m.prompt = counter("prompt_tokens_total", "Tokens of prompts read.", model)
	m.generation = counter("generation_tokens_total", "Tokens drawn.", model)
	m.queries = counter("prefix_cache_queries_total", "Prompt tokens looked for in the prefix cache.", model)
	m.hits = counter("prefix_cache_hits_total", "Prompt tokens found in the prefix cache.", model)
	m.success = counter("request_success_total", "Answers that ended, by reason.", model, "finished_reason")
	m.first = histogram("time_to_first_token_seconds", "From a call to an answer's first token.", long, model)
	m.between = histogram("inter_token_latency_seconds", "Between two tokens of an answer.", short, model)
	m.whole = histogram("e2e_request_latency_seconds", "From a call to an answer's end.", long, model)
	m.queue = histogram("request_queue_time_seconds", "From a call to its first step.", long, model)
	m.prefill = histogram("request_prefill_time_seconds", "From the first step to the first token.", long, model)
	m.decode = histogram("request_decode_time_seconds", "From the first token to the last.", long, model)

	m.questions = counter("router_questions_total", "Questions the router was asked.").WithLabelValues()
	m.oneStep = counter("router_one_step_plans_total", "Plans of a single subtask.").WithLabelValues()
	m.repairs = counter("router_plan_repairs_total", "Times the decomposer was asked again because its answer was no plan.").WithLabelValues()
	m.unparseable = counter("router_unparseable_total", "Questions that ended because no plan or answer could be read.").WithLabelValues()
	m.cost = counter("router_cost_usd_total", "What the router's questions have cost, in US dollars.").WithLabelValues()
	m.planLength = histogram("router_plan_length", "Subtasks of a plan.", []float64{1, 2, 3, 4, 5, 6, 8, 12}).WithLabelValues().(prometheus.Histogram)
	m.allocated = counter("router_allocations_total", "Subtasks allocated to a model.", "model")
	m.poolErrors = counter("router_pool_errors_total", "Calls of a model that failed.", "model")
	return m
}

// Registry is where they are gathered.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// Watch adds the state of an engine, under the name of its base.
func (m *Metrics) Watch(name string, e *engine.Engine) {
	labels := prometheus.Labels{"model_name": name}
	gauge := func(metric, help string, f func(engine.Stats) float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "r2:" + metric, Help: help, ConstLabels: labels},
			func() float64 { return f(e.Stats()) }))
	}
	gauge("num_requests_running", "Answers under way.", func(s engine.Stats) float64 { return float64(s.Running) })
	gauge("num_requests_waiting", "Answers that wait for their first step, or to go on.", func(s engine.Stats) float64 { return float64(s.Waiting) })
	gauge("kv_cache_usage_perc", "Share of the cache's pages that are in use, 0 to 1.", func(s engine.Stats) float64 {
		return float64(s.Pages-s.Idle) / float64(max(1, s.Pages))
	})
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "r2:num_preemptions_total", Help: "Answers that gave way and went on later.", ConstLabels: labels},
		func() float64 { return float64(e.Stats().Preempted) }))
}

// Breaker adds the state of the circuit breaker of a member of the router's pool: 0 closed, 1 half-open, 2 open.
func (m *Metrics) Breaker(model string, state func() int) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "r2:pool_breaker_state",
		Help:        "Whether a pool member's calls are made (0), one is to see if it is well again (1), or none is, since it failed time after time (2).",
		ConstLabels: prometheus.Labels{"model": model}}, func() float64 { return float64(state()) }))
}

// A stopwatch times one answer.
type stopwatch struct {
	m           *Metrics
	model       string
	began       time.Time
	first, last time.Time // tokens
	queued      time.Duration
}

func (m *Metrics) start(model string) *stopwatch {
	return &stopwatch{m: m, model: model, began: time.Now()}
}

// event notes one of the engine's.
func (w *stopwatch) event(e engine.Event) {
	if w.m == nil {
		return
	}
	if e.Start != nil {
		w.queued = e.Start.Queued
	}
	if e.Token.ID < 0 {
		return
	}
	now := time.Now()
	if w.last.IsZero() {
		w.m.first.WithLabelValues(w.model).Observe(now.Sub(w.began).Seconds())
		w.m.prefill.WithLabelValues(w.model).Observe((now.Sub(w.began) - w.queued).Seconds())
		w.first, w.last = now, now
		return
	}
	w.m.between.WithLabelValues(w.model).Observe(now.Sub(w.last).Seconds())
	w.last = now
}

// end notes how an answer ended. First says that it is its prompt's first.
func (w *stopwatch) end(d *openai.Done, reason string, first bool) {
	if w.m == nil {
		return
	}
	now := time.Now()
	w.m.whole.WithLabelValues(w.model).Observe(now.Sub(w.began).Seconds())
	w.m.queue.WithLabelValues(w.model).Observe(w.queued.Seconds())
	if !w.first.IsZero() {
		w.m.decode.WithLabelValues(w.model).Observe(w.last.Sub(w.first).Seconds())
	}
	w.m.success.WithLabelValues(w.model, reason).Inc()
	w.m.generation.WithLabelValues(w.model).Add(float64(d.Out))
	w.m.queries.WithLabelValues(w.model).Add(float64(d.In))
	w.m.hits.WithLabelValues(w.model).Add(float64(d.Cached))
	if first {
		w.m.prompt.WithLabelValues(w.model).Add(float64(d.In))
	}
}

// Router is the router's model, of whose traces the metrics are told.
func (m *Metrics) Router(r openai.Model) openai.Model { return watched{r, m} }

type watched struct {
	openai.Model
	m *Metrics
}

func (w watched) Answer(ctx context.Context, c *openai.Call) iter.Seq2[openai.Part, error] {
	return func(yield func(openai.Part, error) bool) {
		for p, err := range w.Model.Answer(ctx, c) {
			if p.Done != nil && p.Done.Trace != nil {
				w.m.trace(p.Done.Trace, err)
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

// trace counts one question.
func (m *Metrics) trace(t *router.Trace, err error) {
	m.questions.Inc()
	m.cost.Add(float64(t.Cost) / float64(router.Dollar))
	if n := len(t.Steps); n > 0 {
		m.planLength.Observe(float64(n))
		if n == 1 {
			m.oneStep.Inc()
		}
	}
	for _, s := range t.Steps {
		if s.Model != "" {
			m.allocated.WithLabelValues(s.Model).Inc()
		}
	}
	m.repairs.Add(float64(max(0, t.Ledger[router.StagePlan].Calls-1)))
	for _, c := range t.Calls {
		if c.Error != "" {
			m.poolErrors.WithLabelValues(c.Model).Inc()
		}
	}
	if errors.As(err, new(*router.PlanError)) || errors.Is(err, router.ErrAnswer) {
		m.unparseable.Inc()
	}
}
