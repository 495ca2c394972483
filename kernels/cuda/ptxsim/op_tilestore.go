package ptxsim

// tileStores are a thread's stores of tiles, as copies are its copies.
type tileStores struct {
	queue []moved
	ends  []int
	time  uint32 // stores started
}

func (s *tileStores) clear() { s.queue, s.ends, s.time = s.queue[:0], s.ends[:0], 0 }

func (s *tileStores) commit() { s.ends = append(s.ends, len(s.queue)) }

// storeAgent names the unit of a thread's stores.
type storeAgent int

func (c *compiler) storeTile(rank int) {
	tensor, a := c.tensor(c.op(0), rank), c.address(c.op(1), shared)
	c.count(2, 2)
	c.meteredTile(tensor, -1, writing)
	c.eachLane(func(w *warp, l int) {
		m := tensor(w, l)
		if m == nil {
			return
		}
		m.base = a.of(w, l)
		if !w.aligned(m, l) || w.block.survey {
			return
		}
		s := &w.tiles[l]
		s.time++
		agent, ok := w.agent(storeAgent(w.first+l), l)
		if !ok {
			return
		}
		ok = m.pieces(func(from, to uint64, inside int) bool {
			if b, _ := w.locate(from, 16, shared, reading, l); b == nil {
				return false
			}
			return w.observeUnit(w.block, from, 16, reading, l, agent, s.time) && (inside == 0 || w.insideTensor(to, inside, writing, l))
		})
		if ok {
			s.queue = append(s.queue, *m)
		}
	})
}

// waitStores ends stores until at most n groups are under way. Only now are their bytes read.
func (w *warp) waitStores(lane, n int) {
	s := &w.tiles[lane]
	done := len(s.ends) - n
	if done <= 0 {
		return
	}
	upto := s.ends[done-1]
	for i := range s.queue[:upto] {
		w.block.put(&s.queue[i])
	}
	s.queue = append(s.queue[:0], s.queue[upto:]...)
	s.ends = append(s.ends[:0], s.ends[done:]...)
	for i := range s.ends {
		s.ends[i] -= upto
	}
	if upto > 0 {
		agent, _ := w.agent(storeAgent(w.first+lane), lane)
		w.learn(1<<lane, agent, s.time-uint32(len(s.queue)))
	}
}

// put writes a tile's bytes to global memory.
func (b *block) put(m *moved) {
	m.pieces(func(from, to uint64, inside int) bool {
		if inside > 0 {
			dst := b.buffers[to>>offsetBits-1]
			copy(dst.bytes[to&(1<<offsetBits-1):][:inside], b.shared.bytes[from:from+16])
		}
		return true
	})
}

// finishStores writes what no thread has waited for: the end of a block waits.
func (b *block) finishStores() {
	for _, w := range b.warps {
		for l := range 32 {
			for i := range w.tiles[l].queue {
				b.put(&w.tiles[l].queue[i])
			}
		}
	}
}
