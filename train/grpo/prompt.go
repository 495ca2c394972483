package grpo

import "github.com/r2-reasoner/r2/model/batch"

// partRows is the most rows of a group that share one prompt. What the memory holds must not say where a group
// is cut, since its gradient's bits would say so too: the number is a constant, and a larger group computes its
// prompt once more.
const partRows = 4096

// Rows is the most rows that a batch must have room for, so that a group of completions of at most so many
// tokens each can share a prompt of at most so many.
func Rows(prompt, completion, group int) int {
	return max(prompt+completion-1, min(prompt-1+group*completion, partRows))
}

// sequences are the rollouts of a group, none without tokens, to train on: each token of a completion is predicted. What
// they begin with in common is run once, all but the last token of a prompt, which predicts the first of its
// completion.
func sequences(group []Rollout) []batch.Sequence {
	seqs := make([]batch.Sequence, len(group))
	var first []int32 // the tokens whose rows are there to share
	rows := 0
	for i := range group {
		r, s := &group[i], &seqs[i]
		*s = batch.Sequence{Tokens: r.Tokens, Temperature: r.Temperature, Masks: r.Masks}
		for p := r.Prompt; p < len(r.Tokens); p++ {
			s.Predict = append(s.Predict, int32(p))
		}
		s.Shared = common(first, r.Tokens[:r.Prompt-1])
		if rows+s.Rows() > partRows {
			s.Shared = 0
		}
		if s.Shared == 0 {
			first, rows = r.Tokens[:len(r.Tokens)-1], 0
		}
		rows += s.Rows()
	}
	return seqs
}

// common is how many tokens a and b begin with alike.
func common(a, b []int32) (n int) {
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
