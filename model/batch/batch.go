// Package batch holds the input of one forward pass.
package batch

// A Batch is several sequences packed end to end for one forward pass.
type Batch struct {
	Tokens    []int32   // ids of all sequences, end to end
	Positions []int32   // of each token in its own sequence
	Starts    []int32   // Starts[s]:Starts[s+1] are the tokens of sequence s; one more than sequences
	Lengths   []int32   // keys the last token of each sequence may see, cached and shared ones included
	Pages     [][]int32 // cache pages of each sequence; nil when training: a sequence then shares the keys it lacks, see kernels.Attn
	Slots     []int32   // cache row each token's key and value go to; nil when training
	From, To  []int32   // cache rows copied, From[i] to To[i], once the batch's own keys and values are there
	Adapters  []int32   // of each sequence, 0 for the base model; sequences of one adapter stand together; nil: all 0

	Want         []int32   // rows whose next-token distribution is needed, ascending; one for each draw from it
	Targets      []int32   // the token that follows each wanted row, where it is known; nil or one a wanted row
	Temperatures []float32 // of each wanted row; nil: 1
	Masks        []uint32  // ⌈vocab/32⌉ words a wanted row, bit set of the ids it may draw; nil: all
}

// Sequences is the number of sequences.
func (b *Batch) Sequences() int { return len(b.Lengths) }

// Reset empties b and keeps its memory.
func (b *Batch) Reset() {
	b.Tokens, b.Positions, b.Starts, b.Lengths = b.Tokens[:0], b.Positions[:0], b.Starts[:0], b.Lengths[:0]
	b.Pages, b.Slots, b.Adapters = b.Pages[:0], b.Slots[:0], b.Adapters[:0]
	b.From, b.To = b.From[:0], b.To[:0]
	b.Want, b.Targets, b.Temperatures, b.Masks = b.Want[:0], b.Targets[:0], b.Temperatures[:0], b.Masks[:0]
}
