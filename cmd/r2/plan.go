package main

import (
	"fmt"

	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/train"
)

// plan says what memory training will take besides what is loaded, and refuses what does not fit. A quarter of
// what is left then serves to compute less: the size it returns.
func plan(o outputFlags, dec *model.Decoder, ad *model.Adapter, size model.Size) (model.Size, error) {
	total, say, err := needs(dec, ad, size)
	if err != nil {
		return size, err
	}
	free, known := available(dec.Backend())
	if known && total > free {
		return size, fmt.Errorf("training needs %s of memory, %s are free: take a smaller --micro-tokens, shorter rows, fewer samples of a prompt or a smaller rank (%s)", mib(total), mib(free), say)
	}
	if known {
		if size, err = train.Spend(dec, ad, size, (free-total)/4); err == nil {
			_, say, err = needs(dec, ad, size)
		}
		if err != nil {
			return size, err
		}
		say += fmt.Sprintf(" of %s free", mib(free))
	}
	o.note("memory: %s", say)
	return size, nil
}

// needs is what a learner takes together, and in words.
func needs(dec *model.Decoder, ad *model.Adapter, size model.Size) (total int64, say string, err error) {
	all, err := train.Needs(dec, ad, size)
	for _, n := range all {
		total += n.Bytes
		say += fmt.Sprintf("%s %s, ", n.What, mib(n.Bytes))
	}
	return total, say + "together " + mib(total), err
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
