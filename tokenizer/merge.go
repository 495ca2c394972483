package tokenizer

import (
	"github.com/nlpodyssey/gotokenizers/models/bpemodel"
	"github.com/nlpodyssey/gotokenizers/vocabulary"
)

// longPiece is the length in bytes from which mergeLong takes over:
// bpemodel.Word deletes merged symbols one by one, which is quadratic. Below it
// that costs less than the rest of the work.
const longPiece = 512

// A merger turns one piece into ids by byte-level BPE.
type merger struct {
	merges *bpemodel.MergeMap
	vocab  *vocabulary.Vocabulary
	bytes  [256]int32 // id of each byte's token, or -1
	whole  bool       // ignore_merges: a piece that is a token is that token
	unk    int32      // stands for bytes without a token, or -1
	fuse   bool       // one unk for a run of them
	cache  *cache
}

// encode appends the ids of piece.
func (m *merger) encode(ids []int32, piece string) []int32 {
	if len(piece) == 1 && m.bytes[piece[0]] >= 0 {
		return append(ids, m.bytes[piece[0]])
	}
	if len(piece) > cacheKey {
		return m.fresh(ids, piece)
	}
	if hit, ok := m.cache.get(piece); ok {
		return append(ids, hit...)
	}
	n := len(ids)
	ids = m.fresh(ids, piece)
	m.cache.put(piece, ids[n:])
	return ids
}

// fresh is encode without the cache.
func (m *merger) fresh(ids []int32, piece string) []int32 {
	if m.whole {
		if id, ok := m.vocab.GetID(spell(piece)); ok {
			return append(ids, int32(id))
		}
	}
	n := len(ids)
	ids = m.symbols(ids, piece)
	if len(ids)-n >= longPiece {
		return ids[:n+mergeLong(ids[n:], m.merges)]
	}
	word := bpemodel.NewWordWithCapacity(len(ids) - n)
	for _, id := range ids[n:] {
		word.Add(int(id), 1)
	}
	word.MergeAll(m.merges, 0)
	ids = ids[:n]
	for _, s := range *word {
		ids = append(ids, int32(s.ID))
	}
	return ids
}

// symbols appends the ids BPE starts from: one a byte. Bytes without a token
// give unk, or nothing.
func (m *merger) symbols(ids []int32, piece string) []int32 {
	unknown := false
	for i := range len(piece) {
		id := m.bytes[piece[i]]
		if id >= 0 {
			ids = append(ids, id)
		} else if m.unk >= 0 && !(unknown && m.fuse) {
			ids = append(ids, m.unk)
		}
		unknown = id < 0
	}
	return ids
}

// mergeLong merges ids in place and returns how many are left: the same merges
// in the same order as bpemodel.Word (lowest rank first, leftmost among equals),
// in n log n.
func mergeLong(ids []int32, merges *bpemodel.MergeMap) int {
	n := int32(len(ids))
	next, prev := make([]int32, n), make([]int32, n)
	queue := make(pairs, 0, n)
	for i := range n {
		prev[i], next[i] = i-1, i+1
		if i+1 < n {
			queue = queue.add(ids, i, i+1, merges)
		}
	}
	queue.order()
	for len(queue) > 0 {
		var p pair
		p, queue = queue.pop()
		left, right := p.pos, next[p.pos]
		if ids[left] < 0 || right >= n {
			continue // merged away since
		}
		if now, ok := merges.Get(int(ids[left]), int(ids[right])); !ok || int32(now.ID) != p.id {
			continue // one of the two has changed since
		}
		ids[left], ids[right] = p.id, -1
		after := next[right]
		next[left] = after
		if before := prev[left]; before >= 0 {
			queue = queue.push(ids, before, left, merges)
		}
		if after < n {
			prev[after] = left
			queue = queue.push(ids, left, after, merges)
		}
	}
	k := 0
	for i := int32(0); i < n; i = next[i] {
		ids[k] = ids[i]
		k++
	}
	return k
}

// A pair is a merge that may be made: of the symbol at pos and the one after it.
type pair struct{ rank, pos, id int32 }

// pairs is a heap of them, the one to make first on top.
type pairs []pair

func (q pairs) less(i, j int) bool {
	return q[i].rank < q[j].rank || q[i].rank == q[j].rank && q[i].pos < q[j].pos
}

// add appends the pair at positions left and right, if it can be merged, and
// leaves the heap out of order.
func (q pairs) add(ids []int32, left, right int32, merges *bpemodel.MergeMap) pairs {
	if m, ok := merges.Get(int(ids[left]), int(ids[right])); ok {
		q = append(q, pair{int32(m.Rank), left, int32(m.ID)})
	}
	return q
}

func (q pairs) push(ids []int32, left, right int32, merges *bpemodel.MergeMap) pairs {
	n := len(q)
	q = q.add(ids, left, right, merges)
	for i := n; i > 0 && i < len(q); {
		up := (i - 1) / 2
		if !q.less(i, up) {
			break
		}
		q[i], q[up] = q[up], q[i]
		i = up
	}
	return q
}

func (q pairs) pop() (pair, pairs) {
	top, last := q[0], len(q)-1
	q[0] = q[last]
	q = q[:last]
	q.down(0)
	return top, q
}

func (q pairs) order() {
	for i := len(q)/2 - 1; i >= 0; i-- {
		q.down(i)
	}
}

func (q pairs) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(q) {
			return
		}
		if c+1 < len(q) && q.less(c+1, c) {
			c++
		}
		if !q.less(c, i) {
			return
		}
		q[i], q[c] = q[c], q[i]
		i = c
	}
}
