package main

import (
	"fmt"
	"regexp"
	"strings"
)

// loss is how the compiler says that it has given up what a kernel is written for: products of a warpgroup one after
// another, or registers that do not move between warpgroups. Such a kernel is right, and slow.
var loss = regexp.MustCompile(`\((C75\d\d)\)[^\n]*?(serialized|setmaxnreg)[^\n]*?'(\w+)'`)

// slow finds that in what the compiler says of a source. The first version of an operation may be slow.
func slow(log string) error {
	for _, m := range loss.FindAllStringSubmatch(log, -1) {
		if !strings.HasSuffix(m[3], "_v1") {
			return fmt.Errorf("the compiler gives up %s's speed: %s", m[3], strings.TrimSpace(m[0]))
		}
	}
	return nil
}
