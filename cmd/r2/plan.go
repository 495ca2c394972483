package main

import (
	"fmt"

	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/train"
)

// plan says what memory training will take besides what is loaded, and refuses what does not fit.
func plan(o outputFlags, dec *model.Decoder, ad *model.Adapter, size model.Size) error {
	needs, err := train.Needs(dec, ad, size)
	if err != nil {
		return err
	}
	total, say := int64(0), ""
	for _, n := range needs {
		total += n.Bytes
		say += fmt.Sprintf("%s %s, ", n.What, mib(n.Bytes))
	}
	say += "together " + mib(total)
	free, known := available(dec.Backend())
	if known && total > free {
		return fmt.Errorf("training needs %s of memory, %s are free: take a smaller --micro-tokens, shorter rows, fewer samples of a prompt or a smaller rank (%s)", mib(total), mib(free), say)
	}
	if known {
		say += fmt.Sprintf(" of %s free", mib(free))
	}
	o.note("memory: %s", say)
	return nil
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
