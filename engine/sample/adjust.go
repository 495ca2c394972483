package sample

// adjust adds d's bias to the logits and applies its penalties: repetition (Keskar et al. 2019) counts prompt
// and completion and has the sign of the logit decide, as in transformers; frequency and presence count
// the completion alone, as OpenAI defines them.
func (s *Scratch) adjust(d Draw) {
	for _, b := range d.Bias {
		s.logits[b.ID] += b.Add
	}
	if p := d.Repetition; p != 0 && p != 1 {
		for _, ids := range [...][]int32{d.Prompt, d.Drawn} {
			for _, id := range ids {
				if s.counts[id]++; s.counts[id] > 1 {
					continue
				}
				if s.logits[id] < 0 {
					s.logits[id] *= p
				} else {
					s.logits[id] /= p
				}
			}
		}
		s.forget(d.Prompt)
		s.forget(d.Drawn)
	}
	if d.Presence == 0 && d.Frequency == 0 {
		return
	}
	for _, id := range d.Drawn {
		s.counts[id]++
	}
	for _, id := range d.Drawn {
		if n := s.counts[id]; n > 0 {
			s.logits[id] -= float64(n)*d.Frequency + d.Presence
			s.counts[id] = 0
		}
	}
}

// forget clears the counts of ids.
func (s *Scratch) forget(ids []int32) {
	for _, id := range ids {
		s.counts[id] = 0
	}
}
