package train

import (
	"errors"

	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/weights"
)

// A Need is device memory that a learner takes, and for what.
type Need struct {
	What  string
	Bytes int64
}

// Needs is what New will take for the same arguments, before it does. A decoder in training holds the
// gradients of its own weights already.
func Needs(dec *model.Decoder, ad *model.Adapter, size model.Size) ([]Need, error) {
	c := &dec.Config
	params, grads, rank := int64(0), int64(0), size.Rank
	if ad != nil {
		a, err := weights.NewAdapter(ad.Config, *c)
		if err != nil {
			return nil, err
		}
		tensors := int64(0)
		for _, p := range a.Pairs {
			params += int64(p.Rank) * int64(p.In+p.Out)
			tensors += 2
		}
		grads, rank = params, max(rank, ad.Rank)
		grads += tensors // sums of squares
	} else {
		for _, p := range c.Parameters() {
			n := int64(1)
			for _, d := range p.Shape {
				n *= int64(d)
			}
			params += n
		}
	}
	size.Train = true
	slice := dec.HeadRows(size)
	logits := 4 * int64(slice) * int64(c.Vocab)
	if holdsNone(dec, size) {
		logits = 0
	}
	return []Need{
		{"gradients", 4 * grads},
		{"moments", 4 * 2 * params},
		{"activations", 4*activations(c, size, rank, slice) + int64(size.Tokens)*int64(dec.KeyBytes())},
		{"logits", logits},
	}, nil
}

// Spend is size with room for what a backward pass otherwise computes again, as far as so many bytes go: the
// logits of all wanted rows, then the activations of whole layers. No bit of a result depends on it.
func Spend(dec *model.Decoder, ad *model.Adapter, size model.Size, bytes int64) (model.Size, error) {
	var err error
	need := func(s model.Size) (total int64) {
		needs, e := Needs(dec, ad, s)
		for _, n := range needs {
			total += n.Bytes
		}
		err = errors.Join(err, e)
		return total
	}
	bytes += need(size)
	more := size
	if more.Slice = size.Wanted; !holdsNone(dec, more) && need(more) <= bytes {
		size = more
	}
	for more = size; more.Keep < dec.Config.Layers; {
		if more.Keep++; need(more) > bytes {
			break
		}
		size = more
	}
	return size, err
}

// holdsNone reports whether a learner's pass never has logits.
func holdsNone(dec *model.Decoder, size model.Size) bool {
	size.Train = true
	return dec.HoldsNoLogits(size)
}

// activations counts the elements of a Pass in training besides the logits.
func activations(c *weights.Config, s model.Size, rank, slice int) int64 {
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	qkv := q + 2*kv
	low := len(model.Modules()) * rank
	forward := 5*c.Hidden + qkv + q + c.Heads + 3*c.FFN + low
	backward := 3*c.Hidden + qkv + q + 3*c.FFN + low
	kept := c.Hidden + qkv + q + c.Heads + 2*c.FFN + low
	if c.QKNorm {
		forward, backward, kept = forward+qkv, backward+qkv, kept+qkv
	}
	token := forward + backward + c.Layers*c.Hidden + min(s.Keep, c.Layers)*kept + 3 // 3: id, position, slot
	wanted := 7                                                                      // row, target, temperature, log-probability, its lse, entropy, coefficient
	if s.Masks {
		wanted += (c.Vocab + 31) / 32
	}
	n := int64(s.Tokens)*int64(token) + int64(s.Wanted)*int64(wanted) + 2*int64(slice)*int64(c.Hidden)
	return n + int64(s.Sequences)*int64(2+s.Pages) + 1
}
