package tokenizer

import (
	"slices"
	"strings"
	"sync"
)

const (
	cacheKey  = 64      // bytes of the longest piece kept
	cacheSize = 1 << 15 // pieces in a generation; there are two
)

// A cache remembers the ids of pieces. Text repeats its words, so it saves most
// of the merging. When a generation is full it becomes the old one, the former
// old one is dropped, and pieces still in use move back as they are asked for.
type cache struct {
	mu       sync.RWMutex
	now, old map[string][]int32
}

func newCache() *cache { return &cache{now: map[string][]int32{}} }

func (c *cache) get(piece string) ([]int32, bool) {
	c.mu.RLock()
	ids, ok := c.now[piece]
	if !ok {
		var old bool
		if ids, old = c.old[piece]; old {
			c.mu.RUnlock()
			c.put(piece, ids)
			return ids, true
		}
	}
	c.mu.RUnlock()
	return ids, ok
}

// put keeps copies, so that a piece does not hold the text it was cut from.
func (c *cache) put(piece string, ids []int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.now) >= cacheSize {
		c.old, c.now = c.now, make(map[string][]int32, cacheSize)
	}
	c.now[strings.Clone(piece)] = slices.Clone(ids)
}
