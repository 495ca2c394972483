package grammar

// findEnds finds from which nodes the end of their rule can be reached: a schema may require a value inside
// itself without end, and no text leads out of there.
func (g *Grammar) findEnds() {
	g.ends = make([]bool, len(g.nodes))
	waiting := make([][]int32, len(g.nodes)) // for each node, those to look at again when it ends
	var work []int32
	for i := range g.nodes {
		switch n := &g.nodes[i]; n.kind {
		case leave:
			work = append(work, int32(i))
		case read:
			if n.set != (set{}) {
				waiting[n.next] = append(waiting[n.next], int32(i))
			}
		case fork, call:
			waiting[n.next] = append(waiting[n.next], int32(i))
			waiting[n.other] = append(waiting[n.other], int32(i))
		}
	}
	for len(work) > 0 {
		i := work[len(work)-1]
		work = work[:len(work)-1]
		if g.ends[i] {
			continue
		}
		g.ends[i] = true
		for _, j := range waiting[i] {
			if n := &g.nodes[j]; n.kind != call || g.ends[n.next] && g.ends[n.other] {
				work = append(work, j)
			}
		}
	}
}

// findClasses splits the bytes into classes that no set tells apart.
func (g *Grammar) findClasses() {
	g.classes = 1
	done := map[set]bool{}
	for i := range g.nodes {
		s := g.nodes[i].set
		if g.nodes[i].kind != read || done[s] {
			continue
		}
		done[s] = true
		var into [256]int // of each class, one more than what its bytes in s become
		var inside, outside [256]bool
		for b := range 256 {
			if c := g.class[b]; s.has(byte(b)) {
				inside[c] = true
			} else {
				outside[c] = true
			}
		}
		for b := range 256 {
			c := g.class[b]
			if !s.has(byte(b)) || !outside[c] {
				continue
			}
			if into[c] == 0 {
				g.classes++
				into[c] = g.classes
			}
			g.class[b] = uint8(into[c] - 1)
		}
		if g.classes == 256 {
			return
		}
	}
}
