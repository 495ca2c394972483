package kvcache

// SetScores notes the log-probabilities of findable page i's tokens, each given those before it: since they
// are a function of the prefix that the page ends, whoever finds it may use them.
func (p *Pool) SetScores(i int32, scores []float32) {
	if len(scores) != p.size || p.pages[i].node == 0 {
		panic("kvcache: scores for a page that is not findable, or not one for each token")
	}
	copy(p.scores[int(i)*p.size:], scores)
	p.pages[i].scored = true
}

// Scores are those of findable page i, valid until the next change of the pool, if they are known.
func (p *Pool) Scores(i int32) ([]float32, bool) {
	return p.scores[int(i)*p.size:][:p.size], p.pages[i].scored
}

// Peek is Find without a reference: the page may be gone after the next change.
func (p *Pool) Peek(parent Node, tokens []int32) (i int32, n Node, ok bool) {
	i = p.lookup(p.bucket(parent, tokens), parent, tokens)
	if i == none {
		return none, 0, false
	}
	return i, p.pages[i].node, true
}
