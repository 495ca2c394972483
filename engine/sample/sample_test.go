package sample

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/r2-reasoner/r2/model/modeltest"
	"pgregory.net/rapid"
)

// The known answers of Random123 (kat_vectors, philox4x32 with 10 rounds).
func TestPhilox(t *testing.T) {
	const ones = 0xffffffff
	for _, k := range []struct {
		c    [4]uint32
		k    [2]uint32
		want [4]uint32
	}{
		{[4]uint32{}, [2]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{ones, ones, ones, ones}, [2]uint32{ones, ones}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0}, [4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		if got := philox(k.c, k.k); got != k.want {
			t.Errorf("philox(%x, %x) = %x, want %x", k.c, k.k, got, k.want)
		}
	}
}

// Uniform numbers are even over [0, 1) whichever argument is counted up, and no argument is ignored.
func TestUniform(t *testing.T) {
	const n, cells = 1 << 16, 64
	ways := map[string]func(i int) float32{
		"seed":        func(i int) float32 { return Uniform(uint64(i), 0, 0) },
		"seed's high": func(i int) float32 { return Uniform(uint64(i)<<32, 0, 0) },
		"sample":      func(i int) float32 { return Uniform(7, uint32(i), 0) },
		"step":        func(i int) float32 { return Uniform(7, 0, uint32(i)) },
	}
	for name, way := range ways {
		var count [cells]int
		for i := range n {
			u := way(i)
			if u < 0 || u >= 1 {
				t.Fatalf("%s %d gives %v", name, i, u)
			}
			count[int(u*cells)]++
		}
		chi := 0.0
		for _, c := range count {
			d := float64(c) - n/cells
			chi += d * d / (n / cells)
		}
		if chi > 63+6*math.Sqrt(2*63) { // six standard deviations
			t.Errorf("counting %s: chi squared %.1f over %d cells", name, chi, cells)
		}
	}
}

// golden is the "sampling" block of the reference numbers.
type golden struct {
	Sampling struct {
		Cases []struct {
			Temperature float32 `json:"temperature"`
			TopK        int     `json:"top_k"`
			TopP        float32 `json:"top_p"`
			MinP        float32 `json:"min_p"`
			Order       string  `json:"order"`
			Kept        int     `json:"kept"`

			RepetitionPenalty float64           `json:"repetition_penalty"`
			PresencePenalty   float64           `json:"presence_penalty"`
			FrequencyPenalty  float64           `json:"frequency_penalty"`
			LogitBias         map[int32]float64 `json:"logit_bias"`
		}
		Prompt []int32 `json:"prompt_ids"`
		Output []int32 `json:"output_ids"`
	}
}

// Every id of every case is drawn exactly on its share of [0, 1), with its log-probability.
func TestChooseGolden(t *testing.T) {
	var g golden
	data, err := os.ReadFile(modeltest.Shared(t, "goldens", "qwen2_f32", "golden.json"))
	if err == nil {
		err = json.Unmarshal(data, &g)
	}
	if err != nil {
		t.Fatal(err)
	}
	file := modeltest.Shared(t, "goldens", "qwen2_f32", "golden.safetensors")
	var logits []float32
	for _, l := range tensor(t, file, "sampling.logits") {
		logits = append(logits, float32(l))
	}
	worst := 0.0
	for i, c := range g.Sampling.Cases {
		if c.Temperature == 0 {
			c.Temperature = 1
		}
		d := Draw{Prompt: g.Sampling.Prompt, Drawn: g.Sampling.Output, Params: Params{
			Temperature: c.Temperature, TopK: c.TopK, TopP: c.TopP, MinP: c.MinP, MinPFirst: c.Order == "vllm",
			Repetition: c.RepetitionPenalty, Presence: c.PresencePenalty, Frequency: c.FrequencyPenalty,
		}}
		for id, add := range c.LogitBias {
			d.Bias = append(d.Bias, Bias{id, add})
		}
		if err := d.Check(); err != nil {
			t.Errorf("case %d: %v", i, err)
		}
		probs := tensor(t, file, fmt.Sprintf("sampling.%d.probs", i))
		worst = max(worst, checkChoose(t, fmt.Sprintf("case %d", i), logits, d, nil, probs))
		checkTop(t, fmt.Sprintf("case %d", i), logits, d, probs)
	}
	if n := len(g.Sampling.Cases); n < 16 {
		t.Errorf("only %d cases were run", n)
	}
	t.Logf("%d cases, worst error of a log-probability %.1e", len(g.Sampling.Cases), worst)
}

// checkTop compares the lists of the most likely ids with want's distribution. Ids of equal weight may
// change places.
func checkTop(t *testing.T, name string, logits []float32, d Draw, want []float64) {
	t.Helper()
	sorted := slices.Clone(want)
	slices.SortFunc(sorted, func(a, b float64) int { return cmp.Compare(b, a) })
	var s Scratch
	Choose(logits, d, nil, 0.5, &s)
	for _, k := range []int{0, 1, 5, MaxTop, len(want)} {
		top := s.Top(nil, k)
		left := k
		if kept := slices.IndexFunc(sorted, func(p float64) bool { return p == 0 }); kept >= 0 {
			left = min(k, kept)
		}
		if len(top) != left {
			t.Errorf("%s: top %d lists %d ids, want %d", name, k, len(top), left)
			return
		}
		for i, e := range top {
			if lp := math.Log(want[e.ID]); math.Abs(float64(e.LogProb)-lp) > 2e-7*max(1, -lp) || math.Abs(lp-math.Log(sorted[i])) > 1e-6 {
				t.Errorf("%s: entry %d of top %d is id %d with %v, want %v; the place's is %v", name, i, k, e.ID, e.LogProb, lp, math.Log(sorted[i]))
			}
		}
	}
}

// checkChoose draws in the middle and just inside both ends of each id's interval of want's distribution
// function, and returns the worst relative error of a log-probability.
func checkChoose(t interface {
	Helper()
	Errorf(string, ...any)
}, name string, logits []float32, d Draw, mask []uint32, want []float64) (worst float64) {
	t.Helper()
	var scratch Scratch
	sum := 0.0
	for id, prob := range want {
		lo := sum
		sum += prob
		if prob < 1e-5 { // narrower than a float32 near 1 can aim at
			continue
		}
		for _, at := range []float64{0.02, 0.5, 0.98} {
			u := float32(lo + at*prob)
			got, lp := Choose(logits, d, mask, u, &scratch)
			if int(got) != id {
				t.Errorf("%s: u = %v draws %d, want %d in [%v, %v)", name, u, got, id, lo, sum)
				return
			}
			rel := math.Abs(float64(lp)-math.Log(prob)) / max(1, math.Abs(math.Log(prob)))
			worst = max(worst, rel)
			if rel > 2e-7 {
				t.Errorf("%s: id %d has log-probability %v, want %v", name, id, lp, math.Log(prob))
			}
		}
	}
	return worst
}

// plain is the definition of the distribution, written for reading: sort, filter, renormalise.
func plain(logits []float32, p Params, mask []uint32) []float64 {
	type entry struct {
		id   int
		l, w float64
	}
	var all []entry
	for j, l := range logits {
		if mask == nil || mask[j/32]>>(j%32)&1 == 1 {
			all = append(all, entry{j, float64(l) / float64(p.Temperature), 0})
		}
	}
	slices.SortStableFunc(all, func(a, b entry) int {
		switch {
		case a.l > b.l:
			return -1
		case a.l < b.l:
			return 1
		}
		return 0
	})
	softmax := func() {
		sum := 0.0
		for i := range all {
			all[i].w = math.Exp(all[i].l - all[0].l)
			sum += all[i].w
		}
		for i := range all {
			all[i].w /= sum
		}
	}
	if p.TopK > 0 && p.TopK < len(all) {
		n := p.TopK
		for n < len(all) && all[n].l == all[p.TopK-1].l {
			n++
		}
		all = all[:n]
	}
	softmax()
	if p.TopP > 0 && p.TopP < 1 {
		before := 0.0
		for i := range all {
			if before >= float64(p.TopP) {
				all = all[:i]
				break
			}
			before += all[i].w
		}
	}
	softmax()
	if p.MinP > 0 {
		for i := range all {
			if all[i].w < float64(p.MinP)*all[0].w {
				all = all[:i]
				break
			}
		}
	}
	softmax()
	out := make([]float64, len(logits))
	for _, e := range all {
		out[e.id] = e.w
	}
	return out
}

// Choose follows the plain definition for any settings, masks and ties.
func TestChooseRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 100).Draw(t, "vocab")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		coarse := rapid.Bool().Draw(t, "coarse")
		logits := make([]float32, n)
		for i := range logits {
			logits[i] = float32(rng.NormFloat64() * 3)
			if coarse { // many ties
				logits[i] = float32(math.Round(float64(logits[i])))
			}
		}
		p := Params{
			Temperature: rapid.SampledFrom([]float32{0.25, 0.7, 1, 2}).Draw(t, "temperature"),
			TopK:        rapid.IntRange(0, 20).Draw(t, "top_k"),
			// No mass of whole ties equals these to the last bit.
			TopP: rapid.SampledFrom([]float32{0, 1, 0.9123, 0.4321, 0.0501}).Draw(t, "top_p"),
			MinP: rapid.SampledFrom([]float32{0, 0.0123, 0.3217, 1}).Draw(t, "min_p"),
		}
		var mask []uint32
		if rapid.Bool().Draw(t, "masked") {
			mask = make([]uint32, (n+31)/32)
			for i := range mask {
				mask[i] = rng.Uint32()
			}
			mask[n/32/2] |= 1
		}
		checkChoose(t, fmt.Sprintf("%+v", p), logits, Draw{Params: p}, mask, plain(logits, p, mask))
	})
}

func TestChooseGreedy(t *testing.T) {
	logits := []float32{1, 3, 3, -2, 5}
	var s Scratch
	for _, c := range []struct {
		mask []uint32
		want int32
		lp   float64
	}{
		{nil, 4, -math.Log(math.Exp(-4) + 2*math.Exp(-2) + math.Exp(-7) + 1)},
		{[]uint32{0b01111}, 1, -math.Log(math.Exp(-2) + 2 + math.Exp(-5))},
		{[]uint32{0b01001}, 0, -math.Log(1 + math.Exp(-3))},
	} {
		id, lp := Choose(logits, Draw{Params: Params{TopK: 1, TopP: 0.1}}, c.mask, 0.999, &s)
		if id != c.want || math.Abs(float64(lp)-c.lp) > 1e-6 {
			t.Errorf("mask %b: %d with %v, want %d with %v", c.mask, id, lp, c.want, c.lp)
		}
	}
}

// A row that is no distribution is never turned into a token.
func TestChooseNoDistribution(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	var s Scratch
	for name, logits := range map[string][]float32{
		"NaN": {1, nan, 2}, "+Inf": {1, inf}, "all -Inf": {-inf, -inf}, "no logits": {},
	} {
		for _, temp := range []float32{0, 1} {
			id, lp := Choose(logits, Draw{Params: Params{Temperature: temp, TopP: 0.5}}, nil, 0.5, &s)
			if id != -1 || lp == lp {
				t.Errorf("%s at temperature %v: id %d with %v", name, temp, id, lp)
			}
		}
	}
	if id, lp := Choose([]float32{-inf, 2}, Draw{Params: Params{Temperature: 1}}, nil, 0, &s); id != 1 || lp != 0 {
		t.Errorf("one finite logit: id %d with %v", id, lp)
	}
	if id, _ := Choose([]float32{nan, 2}, Draw{Params: Params{Temperature: 1}}, []uint32{0b10}, 0, &s); id != 1 {
		t.Errorf("a forbidden NaN: id %d", id)
	}
}

func TestChooseAllocates(t *testing.T) {
	logits := make([]float32, 1000)
	for i := range logits {
		logits[i] = float32(i*7919%1000) / 100
	}
	var s Scratch
	d := Draw{Params: Params{Temperature: 0.8, TopK: 50, TopP: 0.9, MinP: 0.01, Repetition: 1.1, Frequency: 0.2, Bias: []Bias{{3, 1}}},
		Prompt: []int32{1, 2, 1}, Drawn: []int32{2, 7}}
	var top []Scored
	var ids []int32
	row := func() {
		Choose(logits, d, nil, 0.5, &s)
		top, ids = s.Top(top[:0], 5), Best(ids[:0], logits, nil, 5)
	}
	row()
	if n := testing.AllocsPerRun(20, row); n != 0 {
		t.Errorf("%v allocations a row", n)
	}
}

func TestParams(t *testing.T) {
	nan := float32(math.NaN())
	for _, p := range []Params{
		{Temperature: -1}, {Temperature: nan}, {Temperature: float32(math.Inf(1))}, {TopK: -1},
		{TopP: -0.1}, {TopP: 1.5}, {TopP: nan}, {MinP: -1}, {MinP: 2}, {MinP: nan},
		{Repetition: -1}, {Repetition: math.NaN()}, {Repetition: 1e-9}, {Presence: math.Inf(1)}, {Frequency: math.NaN()},
		{Bias: []Bias{{2, math.Inf(-1)}}}, {Bias: []Bias{{2, 1}, {3, math.NaN()}}},
	} {
		if p.Check() == nil {
			t.Errorf("%+v passes", p)
		}
	}
	for _, c := range []struct {
		p    Params
		host bool
	}{
		{Params{}, false}, {Params{Temperature: 1}, false}, {Params{Temperature: 1, TopP: 1}, false},
		{Params{TopK: 3}, false}, {Params{Temperature: 1, TopK: 3}, true},
		{Params{Temperature: 0.5, TopP: 0.9}, true}, {Params{Temperature: 2, MinP: 0.1}, true},
		{Params{Repetition: 1}, false}, {Params{Repetition: 1.1}, true}, {Params{Presence: 1}, true}, {Params{Frequency: -1}, true},
		{Params{Bias: []Bias{{1, 1}}}, true},
	} {
		if err := c.p.Check(); err != nil || c.p.Host() != c.host {
			t.Errorf("%+v: host %v, %v", c.p, c.p.Host(), err)
		}
	}
}

// tensor reads one tensor of a safetensors file: what a test needs and no more.
func tensor(t *testing.T, file, name string) []float64 {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(data)
	var index map[string]struct {
		DType   string `json:"dtype"`
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(data[8:8+n], &index); err != nil {
		t.Fatal(err)
	}
	e, ok := index[name]
	if !ok {
		t.Fatalf("%s has no tensor %s", file, name)
	}
	raw := data[8+n:][e.Offsets[0]:e.Offsets[1]]
	var out []float64
	for len(raw) > 0 {
		if e.DType == "F64" {
			out, raw = append(out, math.Float64frombits(binary.LittleEndian.Uint64(raw))), raw[8:]
		} else {
			out, raw = append(out, float64(math.Float32frombits(binary.LittleEndian.Uint32(raw)))), raw[4:]
		}
	}
	return out
}
