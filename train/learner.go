// Package train holds what SFT and GRPO share: the learner (what is trained, its gradients and its
// moments), the schedule of the learning rate, and checkpoints.
package train

import (
	"fmt"
	"math"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
)

// Optimizer is AdamW's constants (Loshchilov and Hutter 2019), as in PyTorch. Clip is the largest
// norm of all gradients together; 0 does not clip. Norm weights and biases are not decayed.
type Optimizer struct {
	Beta1, Beta2, Eps, Decay, Clip float32
}

// A Learner trains one adapter over a frozen decoder, or all weights of a decoder loaded to be
// trained. Each method has the device to itself while it runs.
type Learner struct {
	Optimizer Optimizer
	Step      int // updates taken

	dec    *model.Decoder
	ad     *model.Adapter
	ref    *model.Adapter // nil: the base
	pass   *model.Pass
	grads  *model.Grads
	params []model.Param
	m, v   []kernels.Tensor
	sums   kernels.Tensor   // 1 × params
	all    []kernels.Param  // as many
	some   []kernels.Tensor // as many
	logp   []float32
	nats   []float32 // entropies
	sumRaw []byte
}

// New makes a learner of ad, or of the decoder's own weights when ad is nil. ref is the adapter of the
// reference policy; nil is the base. size is the largest batch it will be given; Train is set here.
func New(dec *model.Decoder, ad, ref *model.Adapter, size model.Size, o Optimizer) (*Learner, error) {
	be := dec.Backend()
	if err := be.Attach(); err != nil {
		return nil, err
	}
	defer be.Detach()
	grads, err := dec.NewGrads(ad)
	if err != nil {
		return nil, err
	}
	size.Train = true
	if ad != nil {
		size.Rank = max(size.Rank, ad.Rank)
	}
	if ref != nil {
		size.Rank = max(size.Rank, ref.Rank)
	}
	l := &Learner{Optimizer: o, dec: dec, ad: ad, ref: ref, grads: grads, params: grads.Params()}
	for _, p := range l.params {
		l.m = append(l.m, be.New(kernels.F32, p.W.Rows, p.W.Cols))
		l.v = append(l.v, be.New(kernels.F32, p.W.Rows, p.W.Cols))
	}
	l.sums = be.New(kernels.F32, 1, len(l.params))
	l.sumRaw = make([]byte, 4*len(l.params))
	l.all, l.some = make([]kernels.Param, 0, len(l.params)), make([]kernels.Tensor, 0, len(l.params))
	l.pass = dec.NewPass(size)
	l.logp, l.nats = make([]float32, size.Wanted), make([]float32, size.Wanted)
	return l, be.Sync()
}

// Decoder is what is trained, or what the adapter is trained over.
func (l *Learner) Decoder() *model.Decoder { return l.dec }

// Adapter is the adapter in training, or nil.
func (l *Learner) Adapter() *model.Adapter { return l.ad }

// LogProbs gives the log-probability of each wanted row's target under the policy in training. The
// result is valid until the next call; Backward is of this batch.
func (l *Learner) LogProbs(b *batch.Batch) ([]float32, error) {
	return l.logProbs(b, l.ad, nil, (*model.Pass).Forward)
}

// Distributions gives what LogProbs does, and the entropy of each wanted row's distribution, in nats.
func (l *Learner) Distributions(b *batch.Batch) (logp, entropy []float32, err error) {
	entropy = l.nats[:min(len(b.Want), len(l.nats))]
	logp, err = l.logProbs(b, l.ad, entropy, (*model.Pass).Forward)
	return logp, entropy, err
}

// Reference gives log-probabilities under the reference policy. Backward cannot follow it.
func (l *Learner) Reference(b *batch.Batch) ([]float32, error) {
	return l.logProbs(b, l.ref, nil, (*model.Pass).ForwardAlone)
}

// logProbs gives those under an adapter, and the entropies unless entropy is nil.
func (l *Learner) logProbs(b *batch.Batch, ad *model.Adapter, entropy []float32, forward func(*model.Pass)) ([]float32, error) {
	if err := l.dec.Backend().Attach(); err != nil {
		return nil, err
	}
	defer l.dec.Backend().Detach()
	b.Adapters = b.Adapters[:0]
	if ad != nil {
		for range b.Sequences() {
			b.Adapters = append(b.Adapters, 1)
		}
	}
	if err := l.pass.Load(b, []*model.Adapter{nil, ad}, nil); err != nil {
		return nil, err
	}
	forward(l.pass)
	logp := l.logp[:len(b.Want)]
	if entropy == nil {
		return logp, l.pass.LogProbs(logp)
	}
	return logp, l.pass.Distributions(logp, entropy)
}

// Backward adds the gradient of Σ coef·logp over the wanted rows of the last batch.
func (l *Learner) Backward(coef []float32) error {
	if err := l.dec.Backend().Attach(); err != nil {
		return err
	}
	defer l.dec.Backend().Detach()
	return l.pass.Backward(coef, l.grads)
}

// Update takes one optimizer step at learning rate lr and clears the gradients. norm is that of all
// gradients before clipping. A gradient that is not finite is an error that names its tensor, and
// changes nothing. A weight that the step made so is an error too, after which the learner is not to be
// used.
func (l *Learner) Update(lr float32) (norm float32, err error) {
	if err := l.dec.Backend().Attach(); err != nil {
		return 0, err
	}
	defer l.dec.Backend().Detach()
	l.grads.Settle()
	norm, err = l.norm("gradient of", func(p model.Param) kernels.Tensor { return p.G })
	if err != nil {
		return norm, err
	}
	l.Step++
	o := l.Optimizer
	step := kernels.Adam{LR: lr, Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps, Scale: 1, Step: l.Step}
	if o.Clip > 0 {
		step.Scale = float32(min(1, float64(o.Clip)/(float64(norm)+1e-6))) // as torch.nn.utils.clip_grad_norm_
	}
	l.adamW(step, o.Decay)
	l.grads.Zero()
	_, err = l.norm("weight", func(p model.Param) kernels.Tensor { return p.W })
	return norm, err
}

// adamW takes a step of all parameters, at once where the device can. Rows of one dimension are not decayed.
func (l *Learner) adamW(step kernels.Adam, decay float32) {
	all := l.all[:0]
	for i, p := range l.params {
		q := kernels.Param{W: p.W, M: l.m[i], V: l.v[i], G: p.G, Decay: decay}
		if p.OneD {
			q.Decay = 0
		}
		all = append(all, q)
	}
	be := l.dec.Backend()
	if g, ok := be.(kernels.Grouper); ok {
		g.AdamWAll(all, step)
		return
	}
	for _, p := range all {
		step.Decay = p.Decay
		be.AdamW(p.W, p.M, p.V, p.G, step)
	}
}

// squares sets l.sums to the sum of squares of one tensor of each parameter.
func (l *Learner) squares(of func(model.Param) kernels.Tensor) {
	be := l.dec.Backend()
	if g, ok := be.(kernels.Grouper); ok {
		some := l.some[:0]
		for _, p := range l.params {
			some = append(some, of(p))
		}
		g.SumSquaresAll(l.sums, some)
		return
	}
	for i, p := range l.params {
		be.SumSquares(l.sums.Columns(i, 1), of(p))
	}
}

// norm is the norm of one tensor of each parameter, all together.
func (l *Learner) norm(what string, of func(model.Param) kernels.Tensor) (float32, error) {
	l.squares(of)
	if err := l.dec.Backend().Read(l.sumRaw, l.sums); err != nil {
		return 0, err
	}
	total := 0.0
	for i, p := range l.params {
		s := float64(float32At(l.sumRaw, i))
		if math.IsNaN(s) || math.IsInf(s, 0) {
			return float32(s), fmt.Errorf("%s %s is not finite (or its squares overflow)", what, p.Name)
		}
		total += s
	}
	return float32(math.Sqrt(total)), nil
}
