package engine

// adopt takes over the prompt's log-probabilities that an earlier request found, page by page from the
// beginning, so that those tokens need not be computed again. Ranks and the most likely ids are not kept.
func (s *scheduler) adopt(j *job) {
	if j.ranks != nil {
		return
	}
	s.walk(j, func(page int32, first int) bool {
		scores, ok := s.pages.Scores(page)
		if ok && first+len(scores) > len(j.scores)+1 { // scores[i] of a page is of token first+i, j.scores[i] of token i+1
			j.scores = append(j.scores, scores[len(j.scores)+1-first:]...)
		}
		return ok
	})
}

// remember leaves the log-probabilities of a prompt with the pages of its tokens.
func (s *scheduler) remember(j *job) {
	size := s.pages.Size()
	s.walk(j, func(page int32, first int) bool {
		if first == 0 { // the first token has none
			s.scores = append(append(s.scores[:0], 0), j.scores[:size-1]...)
			s.pages.SetScores(page, s.scores)
		} else {
			s.pages.SetScores(page, j.scores[first-1:][:size])
		}
		return true
	})
}

// walk calls f for the findable pages of j's prompt, with the place of their first token, while it returns
// true.
func (s *scheduler) walk(j *job, f func(page int32, first int) bool) {
	size, node := s.pages.Size(), s.pages.Root(j.space)
	for at := 0; at+size <= len(j.Prompt); at += size {
		page, next, ok := s.pages.Peek(node, j.Prompt[at:at+size])
		if !ok || !f(page, at) {
			return
		}
		node = next
	}
}
