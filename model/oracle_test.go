package model_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	_ "go4.org/unsafe/assume-no-moving-gc" // gorgonia panics at its start without this module
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/r2-reasoner/r2/kernels/ref"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// An oracle writes a decoder of one block, with LoRA pairs on its seven projections, as a graph that
// gorgonia differentiates by itself. (Its gradient of Slice is wrong, and so are those of InverseSqrt and
// LogSumExp: columns are chosen by products, and the others written out.)
type oracle struct {
	g     *G.ExprGraph
	src   *model.Random
	ad    *weights.Adapter
	pairs map[string]*G.Node // A and B by their names
	count int
}

func must(n *G.Node, err error) *G.Node {
	if err != nil {
		panic(err)
	}
	return n
}

func (o *oracle) node(v []float64, shape ...int) *G.Node {
	o.count++
	return G.NodeFromAny(o.g, tensor.New(tensor.WithShape(shape...), tensor.WithBacking(v)), G.WithName(fmt.Sprint("n", o.count)))
}

// weight is a tensor of the model; a matrix is transposed, to be multiplied from the right.
func (o *oracle) weight(name string) *G.Node {
	t, err := o.src.Tensor(name)
	if err != nil {
		panic(err)
	}
	v := t.Float64(nil)
	if len(t.Shape) == 1 {
		return o.node(v, t.Shape[0])
	}
	return o.node(transposed(v, t.Shape[0], t.Shape[1]), t.Shape[1], t.Shape[0])
}

func transposed(v []float64, rows, cols int) []float64 {
	out := make([]float64, len(v))
	for i := range rows {
		for j := range cols {
			out[j*rows+i] = v[i*cols+j]
		}
	}
	return out
}

func wide(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

// linear is x·Wᵀ + b + s·x·Aᵀ·Bᵀ.
func (o *oracle) linear(x *G.Node, module string, bias bool) *G.Node {
	y := must(G.Mul(x, o.weight(module+".weight")))
	if bias {
		y = must(G.BroadcastAdd(y, o.weight(module+".bias"), nil, []byte{0}))
	}
	p := o.ad.Pairs[module]
	a, b := o.node(wide(p.A), p.Rank, p.In), o.node(wide(p.B), p.Out, p.Rank)
	o.pairs[module+".lora_A.weight"], o.pairs[module+".lora_B.weight"] = a, b
	low := must(G.Mul(must(G.Mul(x, must(G.Transpose(a)))), must(G.Transpose(b))))
	return must(G.Add(y, must(G.Mul(low, G.NewConstant(p.Scale)))))
}

func (o *oracle) norm(x *G.Node, name string) *G.Node {
	eps := float64(float32(o.src.Config.Eps))
	rms := must(G.Sqrt(must(G.Add(must(G.Mean(must(G.Square(x)), 1)), G.NewConstant(eps)))))
	return must(G.BroadcastHadamardProd(must(G.BroadcastHadamardDiv(x, rms, nil, []byte{1})), o.weight(name), nil, []byte{0}))
}

// columns is columns at … at+n-1 of x, which has w: a product with a part of the identity.
func (o *oracle) columns(x *G.Node, w, at, n int) *G.Node {
	sel := make([]float64, w*n)
	for j := range n {
		sel[(at+j)*n+j] = 1
	}
	return must(G.Mul(x, o.node(sel, w, n)))
}

// rotate is RoPE on one head of tokens 0 … t-1, with cosines and sines rounded as the model's table.
func (o *oracle) rotate(x *G.Node, t, hd int) *G.Node {
	cos, sin, half := make([]float64, t*hd), make([]float64, t*hd), make([]float64, hd*hd)
	for p := range t {
		for i := range hd {
			a := float64(p) * math.Pow(o.src.Config.Theta, -2*float64(i%(hd/2))/float64(hd))
			cos[p*hd+i], sin[p*hd+i] = float64(float32(math.Cos(a))), float64(float32(math.Sin(a)))
		}
	}
	for i := range hd / 2 {
		half[(i+hd/2)*hd+i], half[i*hd+i+hd/2] = -1, 1
	}
	turned := must(G.Mul(x, o.node(half, hd, hd)))
	return must(G.Add(must(G.HadamardProd(x, o.node(cos, t, hd))), must(G.HadamardProd(turned, o.node(sin, t, hd)))))
}

func (o *oracle) attention(x *G.Node, at string, t int) *G.Node {
	c := o.src.Config
	q, k, v := o.linear(x, at+"self_attn.q_proj", true), o.linear(x, at+"self_attn.k_proj", true), o.linear(x, at+"self_attn.v_proj", true)
	mask := make([]float64, t*t)
	for i := range t {
		for j := i + 1; j < t; j++ {
			mask[i*t+j] = -1e9
		}
	}
	var all *G.Node
	for h := range c.Heads {
		kv := h * c.KVHeads / c.Heads
		qh := o.rotate(o.columns(q, c.Heads*c.HeadDim, h*c.HeadDim, c.HeadDim), t, c.HeadDim)
		kh := o.rotate(o.columns(k, c.KVHeads*c.HeadDim, kv*c.HeadDim, c.HeadDim), t, c.HeadDim)
		vh := o.columns(v, c.KVHeads*c.HeadDim, kv*c.HeadDim, c.HeadDim)
		s := must(G.Mul(must(G.Mul(qh, must(G.Transpose(kh)))), G.NewConstant(float64(float32(1/math.Sqrt(float64(c.HeadDim)))))))
		e := must(G.Exp(must(G.Add(s, o.node(mask, t, t)))))
		head := must(G.Mul(must(G.BroadcastHadamardDiv(e, must(G.Sum(e, 1)), nil, []byte{1})), vh))
		place := make([]float64, c.HeadDim*c.Heads*c.HeadDim) // back to its columns
		for j := range c.HeadDim {
			place[j*c.Heads*c.HeadDim+h*c.HeadDim+j] = 1
		}
		head = must(G.Mul(head, o.node(place, c.HeadDim, c.Heads*c.HeadDim)))
		if all == nil {
			all = head
		} else {
			all = must(G.Add(all, head))
		}
	}
	return o.linear(all, at+"self_attn.o_proj", false)
}

// loss is Σ coef[i]·log p(ids[i+1] | ids[0..i]).
func (o *oracle) loss(ids []int32, coef []float64) *G.Node {
	c, t := o.src.Config, len(ids)
	pick, target := make([]float64, t*c.Vocab), make([]float64, t*c.Vocab)
	for i, id := range ids {
		pick[i*c.Vocab+int(id)] = 1
		if i+1 < t {
			target[i*c.Vocab+int(ids[i+1])] = coef[i]
		}
	}
	table := must(G.Transpose(o.weight("model.embed_tokens.weight")))
	x := must(G.Mul(o.node(pick, t, c.Vocab), table))
	const at = "model.layers.0."
	x = must(G.Add(x, o.attention(o.norm(x, at+"input_layernorm.weight"), at, t)))
	h := o.norm(x, at+"post_attention_layernorm.weight")
	gate := o.linear(h, at+"mlp.gate_proj", false)
	act := must(G.HadamardProd(must(G.HadamardProd(gate, must(G.Sigmoid(gate)))), o.linear(h, at+"mlp.up_proj", false)))
	x = must(G.Add(x, o.linear(act, at+"mlp.down_proj", false)))
	logits := must(G.Mul(o.norm(x, "model.norm.weight"), o.weight("lm_head.weight")))
	lse := must(G.Log(must(G.Sum(must(G.Exp(logits)), 1))))
	lp := must(G.BroadcastSub(logits, lse, nil, []byte{1}))
	return must(G.Sum(must(G.HadamardProd(lp, o.node(target, t, c.Vocab)))))
}

// The gradient of one block's LoRA pairs is the one gorgonia finds by differentiating the block's formula:
// an implementation that shares nothing with ours. (TestGradientIsFiniteDifference stands beside it.)
func TestBlockGradientIsGorgonias(t *testing.T) {
	src := modeltest.Tiny("qwen2", 11)
	src.Config.Layers = 1
	cfg := weights.AdapterConfig{R: 3, Alpha: 6, Targets: weights.Targets{Names: model.Modules()}}
	ad, err := model.RandomAdapter(src.Config, cfg, 4)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for _, p := range ad.Pairs {
		for i := range p.B {
			p.B[i] = float32(rng.NormFloat64()) / 4
		}
	}
	ids := []int32{3, 14, 15, 92, 65, 35}
	coef := make([]float64, len(ids)-1)
	narrow := make([]float32, len(coef))
	for i := range coef {
		narrow[i] = float32(rng.NormFloat64())
		coef[i] = float64(narrow[i])
	}

	o := &oracle{g: G.NewGraph(), src: src, ad: ad, pairs: map[string]*G.Node{}}
	loss := o.loss(ids, coef)
	var names []string
	var wrt G.Nodes
	for name, n := range o.pairs {
		names, wrt = append(names, name), append(wrt, n)
	}
	grads, err := G.Grad(loss, wrt...)
	if err != nil {
		t.Fatal(err)
	}
	vm := G.NewTapeMachine(o.g)
	defer vm.Close()
	if err := vm.RunAll(); err != nil {
		t.Fatal(err)
	}

	d, err := model.Load(ref.New(), src.Config, src, model.Options{Context: 64})
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := d.LoadAdapter(ad)
	if err != nil {
		t.Fatal(err)
	}
	got := blockGradient(t, d, loaded, ids, narrow)
	worst := 0.0
	for i, name := range names {
		want := grads[i].Value().Data().([]float64)
		top := 0.0
		for _, w := range want {
			top = max(top, math.Abs(w))
		}
		if len(got[name]) != len(want) || top == 0 {
			t.Fatalf("%s: %d gradients for %d, the largest %v", name, len(got[name]), len(want), top)
		}
		for j, w := range want {
			worst = max(worst, math.Abs(got[name][j]-w)/top)
		}
	}
	t.Logf("%d tensors, worst difference %.1e of a tensor's largest", len(names), worst)
	if len(names) != 14 || !(worst < 1e-9) {
		t.Errorf("%d tensors, worst difference %.1e of a tensor's largest", len(names), worst)
	}
}

// blockGradient is ours, in float64.
func blockGradient(t *testing.T, d *model.Decoder, ad *model.Adapter, ids []int32, coef []float32) map[string][]float64 {
	t.Helper()
	var b batch.Batch
	s := batch.Sequence{Tokens: ids}
	for i := 1; i < len(ids); i++ {
		s.Predict = append(s.Predict, int32(i))
	}
	batch.Pack(&b, []batch.Sequence{s}, 100)
	b.Adapters = []int32{1}
	p := d.NewPass(model.Size{Tokens: 16, Sequences: 1, Wanted: 16, Rank: 3, Train: true})
	g, err := d.NewGrads(ad)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Load(&b, []*model.Adapter{nil, ad}, nil); err != nil {
		t.Fatal(err)
	}
	p.Forward()
	if err := p.LogProbs(make([]float32, len(coef))); err != nil {
		t.Fatal(err)
	}
	if err := p.Backward(coef, g); err != nil {
		t.Fatal(err)
	}
	out := map[string][]float64{}
	for _, q := range g.Params() {
		for r := range q.G.Rows {
			out[q.Name] = append(out[q.Name], ref.Row(q.G, r)...)
		}
	}
	return out
}
