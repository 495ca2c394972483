package sample

// Best appends to dst the k ids of the largest logits that are finite and that mask allows, largest first,
// lower ids first among equals. There may be fewer.
func Best(dst []int32, logits []float32, mask []uint32, k int) []int32 {
	start := len(dst)
	for j, l := range logits {
		if mask != nil && mask[j/32]>>(j%32)&1 == 0 || l-l != 0 {
			continue
		}
		n := len(dst) - start
		if n == k {
			if n == 0 || !(l > logits[dst[len(dst)-1]]) {
				continue
			}
		} else {
			dst = append(dst, 0)
			n++
		}
		list := dst[start:]
		at := n - 1
		for ; at > 0 && logits[list[at-1]] < l; at-- {
			list[at] = list[at-1]
		}
		list[at] = int32(j)
	}
	return dst
}

// Rank is id's place among all ids in the order of Best, from 1.
func Rank(logits []float32, id int32) int32 {
	rank, own := int32(1), logits[id]
	for j, l := range logits {
		if l > own || l == own && int32(j) < id {
			rank++
		}
	}
	return rank
}

// Top appends to dst the k most likely ids of the distribution that Choose drew from last, with their
// log-probabilities, in the order of Best. What truncation took away is not among them.
func (s *Scratch) Top(dst []Scored, k int) []Scored {
	start, total := len(dst), s.total()
	for _, j := range s.ids { // ascending, so that among equals the lower id comes first
		n := len(dst) - start
		if n == k {
			if n == 0 || !(s.logits[j] > s.logits[dst[len(dst)-1].ID]) {
				continue
			}
		} else {
			dst = append(dst, Scored{})
			n++
		}
		list := dst[start:]
		at := n - 1
		for ; at > 0 && s.logits[list[at-1].ID] < s.logits[j]; at-- {
			list[at] = list[at-1]
		}
		list[at].ID = j
	}
	for i := range dst[start:] {
		e := &dst[start+i]
		e.LogProb = s.logprob(e.ID, total)
	}
	return dst
}
