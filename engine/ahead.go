package engine

// ahead plans the step after p's before p's answers are known: one more token of each sequence that p draws one of,
// but of those that end with it. It is nil where that is not the step to take, or cannot be told yet: where
// something else would begin, a page is missing, or what may be drawn depends on what p draws.
//
// A sequence that ends with what p draws, which nobody can see coming, has a row that nobody reads. All this depends
// on the requests and on when they come, never on how long a step takes.
func (s *scheduler) ahead(p *plan) *plan {
	waits := len(s.ready)+len(s.jobs) > 0
	if waits && s.freed {
		return nil
	}
	alive, on, pages := 0, 0, 0
	for i := range p.parts {
		t := &p.parts[i]
		q, j := t.seq, t.seq.job
		if q.done != Running {
			continue
		}
		alive++
		n := q.drawn() + 1 // drawn with p's
		switch {
		case t.n != 1 || t.scores > 0 || !t.draws || len(t.forks) > 0 || j.gone() || n == j.Limit && waits || n < j.Limit && j.rules.bind(n):
			return nil
		case n < j.Limit:
			on++
			pages += max(0, s.pages.Need(len(q.tokens)+1)-len(q.pages))
		}
	}
	if alive < len(s.running) || on == 0 || pages > s.pages.Idle() {
		return nil
	}
	next := &s.beyond[0]
	if p == next {
		next = &s.beyond[1]
	}
	next.reset()
	next.follow(p, s)
	return next
}

// follow fills p with the tokens that are drawn by before.
func (p *plan) follow(before *plan, s *scheduler) {
	b, size := &p.batch, s.pages.Size()
	b.Starts = append(b.Starts, 0)
	for i := range before.parts {
		q := before.parts[i].seq
		if q.done != Running || q.drawn()+1 == q.job.Limit {
			continue
		}
		at := len(q.tokens) // of the token to come
		if at/size == len(q.pages) {
			page, _ := s.pages.Take()
			q.pages = append(q.pages, page)
		}
		p.parts = append(p.parts, part{seq: q, n: 1, draws: true, ahead: true})
		p.rows++
		b.Tokens, b.Positions = append(b.Tokens, ^int32(i)), append(b.Positions, int32(at))
		b.Slots = append(b.Slots, q.pages[at/size]*int32(size)+int32(at%size))
		b.Lengths, b.Pages = append(b.Lengths, int32(at+1)), append(b.Pages, q.pages[:at/size+1])
		b.Starts, b.Want = append(b.Starts, int32(len(b.Tokens))), append(b.Want, int32(len(b.Tokens)-1))
		b.Adapters = append(b.Adapters, int32(q.job.slot))
		b.Temperatures = append(b.Temperatures, q.job.Sampling.Temperature)
		p.draws = append(p.draws, q.draw(q.drawn()+1))
	}
}
