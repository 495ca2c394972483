package routing

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"testing"

	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/allocate"
	"github.com/r2-reasoner/r2/router/decompose"
	"github.com/r2-reasoner/r2/router/local"
	"github.com/r2-reasoner/r2/tokenizer"
	"github.com/r2-reasoner/r2/train/grpo"
)

// pool has two models whose answers cost half a cent and two, and one that is out of order.
type pool struct{ sent atomic.Int32 }

var cents2 = map[string]router.Money{"small": 5e9, "large": 2e10} // a cent is 1e10

func (*pool) Models() []router.Card {
	return []router.Card{{Name: "small", Rank: 1}, {Name: "large", Rank: 2}, {Name: "broken", Rank: 3}}
}

func (p *pool) Complete(_ context.Context, model string, r router.Request) (router.Completion, error) {
	p.sent.Add(1)
	if model == "broken" {
		return router.Completion{}, errors.New("out of order")
	}
	return router.Completion{Text: model, Cost: cents2[model], Out: 1, Finish: router.FinishStop}, nil
}

func policy(t *testing.T) *local.Model {
	tok, err := tokenizer.Open("../../cmd/r2/miniature/router")
	if err != nil {
		t.Fatal(err)
	}
	return &local.Model{Tokenizer: tok}
}

func rollouts(m *local.Model, texts ...string) (g []grpo.Rollout) {
	for _, s := range texts {
		g = append(g, grpo.Rollout{Tokens: append([]int32{1}, m.Tokenizer.Encode(s, false)...), Prompt: 1})
	}
	return g
}

func near(a float32, b float64) bool { return math.Abs(float64(a)-b) < 1e-6 }

func TestPlansAreWorthWhatTheRouterMakesOfThem(t *testing.T) {
	m, p := policy(t), &pool{}
	env := &Plans{Router: &router.Router{Pool: p, Allocator: allocate.Fixed("small"), Integrator: router.Concatenate{}, Limits: router.DefaultLimits},
		Decompose: &decompose.Model{Prompt: decompose.Compact, Max: 2}, Policy: m,
		Check: func(answer, known string) bool { return answer == known }, Cost: 0.1}
	q := &Question{Text: "walk", Answer: "small"}
	g := rollouts(m, `["walk"]`, `walk`, `["walk","walk"]`, `["walk","walk","walk"]`, `["walk"]`, ``)
	if err := env.Score(t.Context(), []*Question{q}, [][]grpo.Rollout{g}); err != nil {
		t.Fatal(err)
	}
	// One step is right and costs half a cent; two steps say it twice, for a cent.
	for i, want := range []float64{1 - 0.05, 0, -0.1, 0, 1 - 0.05, 0} {
		if g[i].Failed || !near(g[i].Reward, want) {
			t.Errorf("plan %d: %v, failed %v; want %v", i, g[i].Reward, g[i].Failed, want)
		}
	}
	if p.sent.Load() != 3 {
		t.Errorf("%d calls for two plans of one and two steps", p.sent.Load())
	}
	env.Router.Allocator = allocate.Fixed("broken")
	g = rollouts(m, `["walk"]`, `no plan`)
	if err := env.Score(t.Context(), []*Question{q}, [][]grpo.Rollout{g}); err != nil {
		t.Fatal(err)
	}
	if !g[0].Failed || g[1].Failed || g[1].Reward != 0 {
		t.Errorf("with a pool out of order: %+v", g)
	}
}

func TestAllocationsPay(t *testing.T) {
	m := policy(t)
	q := &Question{Text: "walk and walk", Answer: "yes", Plan: router.Plan{"walk", "walk"}}
	ds := Decisions([]*Question{q})
	env := &Allocations{Router: &router.Router{Pool: &pool{}, Integrator: router.Concatenate{}, Limits: router.DefaultLimits}, Policy: m,
		Check: func(answer, known string) bool { return true }, Cost: 0.1}
	for _, stepwise := range []bool{false, true} {
		env.Stepwise = stepwise
		first := rollouts(m, "small", "small", "nobody", "broken")
		second := rollouts(m, "large", "small", "large", "small")
		if err := env.Score(t.Context(), ds, [][]grpo.Rollout{first, second}); err != nil {
			t.Fatal(err)
		}
		want := [][2]float64{{1 - 0.25, 1 - 0.25}, {1 - 0.1, 1 - 0.1}, {0, 0}}
		if stepwise { // each for its own half cent or two cents
			want = [][2]float64{{1 - 0.05, 1 - 0.2}, {1 - 0.05, 1 - 0.05}, {0, 0}}
		}
		for j, w := range want {
			if !near(first[j].Reward, w[0]) || !near(second[j].Reward, w[1]) || first[j].Failed {
				t.Errorf("stepwise %v, allocation %d: %v and %v, want %v", stepwise, j, first[j].Reward, second[j].Reward, w)
			}
		}
		if !first[3].Failed || !second[3].Failed {
			t.Errorf("a pool out of order: %+v", first[3])
		}
	}
	if err := env.Score(t.Context(), ds[1:], [][]grpo.Rollout{rollouts(m, "small")}); err == nil {
		t.Error("half a question's decisions are scored")
	}
	p := &pool{}
	env.Router.Pool, env.Parallel = p, 1
	three := rollouts(m, "small", "small", "small")
	err := env.Score(t.Context(), append(ds[:2:2], ds[0]), [][]grpo.Rollout{three, three, three})
	if err == nil || p.sent.Load() != 0 {
		t.Errorf("a question before half of one: error %v after %d calls, want an error before any", err, p.sent.Load())
	}
}
