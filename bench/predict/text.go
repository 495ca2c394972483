package predict

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Text is what is predicted, as a page.
func Text(m *Model, g GPU, all []Prediction) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# Predicted, for hardware to confirm or to refute")
	p("")
	p("Qwen2.5-7B (hidden %d, %d layers, %d heads and %d key heads of %d, %d between, a vocabulary of %d) on one %s. No GPU was at hand: this is", m.Hidden,
		m.Layers, m.Heads, m.KVHeads, m.HeadDim, m.FFN, m.Vocab, g.Name)
	p("made by `make predicted` (bench/predict), which records what the model asks a device for, plays each operation at its real size on the")
	p("simulator, counts what the kernels move, multiply and issue (a sample of the blocks where they are alike), and gives each launch the time of the")
	p("resource that it needs the longest:")
	p("")
	p("| resource | rate | from |")
	p("|---|---|---|")
	p("| memory | %.2f TB/s | a copy within the device as others measured it, 3.0 to 3.1; the datasheet has %.2f |", g.Memory*1e-12, g.Peak*1e-12)
	p("| L2 cache | %.1f TB/s, and %.0f bytes a clock a multiprocessor | measured on the PCIe version (Chips and Cheese 2023) |", g.L2*1e-12, g.Port)
	p("| matrix units | %.0f TFLOP/s by wgmma, %.1f %% of it by mma.sync | datasheet at %.2f GHz; arXiv 2402.13499 |", g.Rate()*1e-12, 100*g.Warp, g.Clock*1e-9)
	p("| instructions | 4 of warps a clock a multiprocessor, %d multiprocessors | the architecture; they are PTX's, and machine code has others |", g.Multiprocessors)
	p("| shared memory | a wave of 128 bytes a clock a multiprocessor | the architecture |")
	p("| launches | %.1f µs each | between those of a graph, as others measured (Spector and others 2025) |", g.Launch*1e6)
	p("")
	p("All of a launch is taken to overlap, blocks to be shared out evenly, and the clock not to fall: a kernel can be slower than its row, and hardly faster. A")
	p("measured time near the row confirms it; one of twice the row says that latency, and none of these, holds the kernel up.")
	p("`bash out/gpu/gpu.sh time` measures each row and prints it beside the prediction.")
	p("")
	p("## Work")
	p("")
	p("“f32” takes activations exactly (three bf16 pieces), “bf16” rounds them. The targets are for bf16 weights. Of the roof: of the time in which memory gives")
	p("weights and keys once, or the matrix units do what must be done, whichever is longer; products beside the %s TFLOP/s of cuBLAS that are published.", "716 and 795")
	p("")
	p("| work | activations | predicted | launches | most of it waits for | that is | must | then | the counts allow |")
	p("|---|---|---|---|---|---|---|---|---|")
	for _, x := range all {
		b.WriteString(m.row(x, g))
	}
	p("")
	if missing := notIn(all); missing != "" {
		p("Not counted yet: %s.", missing)
		p("")
	}
	m.grpo(&b, g, all)
	kernels(&b, all)
	return b.String()
}

// notIn are the cases that are not predicted yet.
func notIn(all []Prediction) string {
	var missing []string
	for _, w := range Works {
		for _, acts := range []string{"f32", "bf16"} {
			if (acts == "f32" || w.Kind != Attention && w.Kind != Gradient) && find(all, w.Case, acts).Seconds == 0 {
				missing = append(missing, w.Case+" ("+acts+")")
			}
		}
	}
	return strings.Join(missing, "; ")
}

// row is one work's line.
func (m *Model) row(x Prediction, g GPU) string {
	most := ""
	for _, by := range longest(x.By, func(seconds float64) float64 { return seconds })[:min(2, len(x.By))] {
		if x.By[by] > 0.15*x.Seconds {
			most += fmt.Sprintf("%s %.0f %%, ", by, 100*x.By[by]/x.Seconds)
		}
	}
	rate, must, then, verdict := "", "", "", ""
	if v := m.Rate(x.Work, g, x.Seconds); v > 0 {
		rate, must, then = fmt.Sprintf("%.4g %s", v, x.Target), fmt.Sprintf("%.4g", x.Must), fmt.Sprintf("%.4g", x.Then)
		switch {
		case v >= x.Then:
			verdict = "both"
		case v >= x.Must:
			verdict = "the first"
		default:
			verdict = "neither"
		}
	}
	return fmt.Sprintf("| %s | %s | %.3f ms | %d | %s | %s | %s | %s | %s |\n", x.Case, x.Acts, 1e3*x.Seconds, x.Launches, strings.TrimSuffix(most, ", "), rate, must, then, verdict)
}

// find is the prediction of a case.
func find(all []Prediction, name, acts string) Prediction {
	for _, x := range all {
		if strings.HasSuffix(x.Case, name) && x.Acts == acts {
			return x
		}
	}
	return Prediction{}
}

// grpo puts the step together.
func (m *Model) grpo(b *strings.Builder, g GPU, all []Prediction) {
	fmt.Fprintf(b, "## The GRPO step: %d prompts of %d tokens, %d rollouts each of %d, LoRA of rank %d\n\n", Prompts, PromptLen, Samples, DrawLen, Rank)
	b.WriteString("Rollouts of all prompts at once, at the mean of their contexts; prompts four at a time; forward passes of the policy and the reference, and the\nbackward pass, of a group in a batch of up to 8,192 tokens. Must: 80 s; then 38.9 s.\n\n| activations | prompts | drawing | forward | reference | backward | update | together |\n|---|---|---|---|---|---|---|---|\n")
	for _, acts := range []string{"f32", "bf16"} {
		line, total, whole := "| "+acts, 0.0, true
		for _, part := range []struct {
			name  string
			times float64
		}{{"four at a time", Prompts / 4}, {"of 320 rollouts", DrawLen}, {"forward of a group", Prompts}, {"reference of a group", Prompts}, {"backward of a group", Prompts}, {"update", 1}} {
			t := part.times * find(all, part.name, acts).Seconds
			total, whole = total+t, whole && t > 0
			if t == 0 {
				line += " | not counted yet"
				continue
			}
			line += fmt.Sprintf(" | %.2f s", t)
		}
		more := ""
		if !whole {
			more = "more than "
		}
		fmt.Fprintf(b, "%s | %s%.1f s |\n", line, more, total)
	}
	step, learner := find(all, "of 320 rollouts", "f32"), find(all, "forward of a group", "f32")
	if step.Seconds == 0 || learner.Seconds == 0 {
		b.WriteString("\n")
		return
	}
	token := 2 * m.KVHeads * m.HeadDim * m.Layers * 4
	paged := step.N * (step.Context + pageSize - 1) / pageSize * pageSize * token
	rest := step.Bytes - paged
	rollouts := Prompts * (PromptLen + Samples*DrawLen) * token
	gb := func(n int) float64 { return float64(n) * 1e-9 }
	fmt.Fprintf(b, "\nMemory, from what the decoder, the runner and the learner ask for: weights, adapter and a batch of 320 rows %.1f GB; the learner (gradients, moments,\nactivations of 8,192 tokens, logits of 128) %.1f GB; the cache in f32, %d bytes a token, of all rollouts with shared prompts %.1f GB: together\n%.1f GB of this card's %.0f.\n",
		gb(rest), gb(learner.Bytes), token, gb(rollouts), gb(rest+learner.Bytes+rollouts), g.Size*1e-9)
	free := 40_000_000_000 - rest - learner.Bytes
	fits := free / token / (DrawLen + PromptLen/Samples)
	if fits < 1 {
		fmt.Fprintf(b, "Within 40 GB there is no room for a cache: the step does not fit.\n\n")
		return
	}
	fmt.Fprintf(b, "Within 40 GB there is room for the cache of %d rollouts at once (%.1f GB): the step fits when they are drawn in %d turns, each of %d tokens, and a turn of\nfewer sequences is hardly shorter. A cache in bf16 would halve its part.\n\n",
		fits, gb(free), (Prompts*Samples+fits-1)/fits, DrawLen)
}

// longest lists the names in of, the one that takes the longest first; those that take as long by name.
func longest[T any](of map[string]T, seconds func(T) float64) []string {
	names := slices.Sorted(maps.Keys(of))
	slices.SortStableFunc(names, func(x, y string) int { return compare(seconds(of[y]), seconds(of[x])) })
	return names
}

// kernels tells of each kernel at the call where it takes the longest.
func kernels(b *strings.Builder, all []Prediction) {
	b.WriteString("## Kernels\n\nAt the call, of all work above with exact activations, where a kernel takes the longest. Moved: bytes between multiprocessors and L2 cache, in sectors of 32, by the least that memory must\nmove. Asked for: of what is moved. Conflicts: waves of shared memory beyond the least, of all. Intensity: operations of products by byte of\nshared memory that wgmma reads.\n\n| kernel | work | call | blocks | least bytes | moved | asked for | conflicts | intensity | f32 operations | instructions of warps | time | waits for |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	best, of := map[string]Share{}, map[string]string{}
	for _, x := range all {
		for _, k := range x.Kernels {
			if x.Acts == "f32" && k.Seconds > best[k.Cost.Kernel].Seconds {
				best[k.Cost.Kernel], of[k.Cost.Kernel] = k, x.Case
			}
		}
	}
	for _, name := range longest(best, func(k Share) float64 { return k.Seconds }) {
		k := best[name]
		c := k.Cost
		share := func(a, b float64) string {
			if b == 0 {
				return ""
			}
			return fmt.Sprintf("%.0f %%", 100*a/b)
		}
		intensity := ""
		if c.Operands > 0 {
			intensity = fmt.Sprintf("%.0f", c.Group/c.Operands)
		}
		t, _ := H100.Time(c)
		fmt.Fprintf(b, "| %s | %s | %s | %d × %d | %.3g | %.2f | %s | %s | %s | %.3g | %.3g | %.1f µs | %s |\n", name, of[name], k.Call, c.Blocks, c.Threads, c.Memory,
			c.Moved/c.Memory, share(c.Useful, c.Moved), share(c.Conflicts, c.Waves), intensity, c.Flops, c.Issued, 1e6*t, k.By)
	}
}
