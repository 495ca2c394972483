package main

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/r2-reasoner/r2/bench"
	"github.com/r2-reasoner/r2/weights"
)

// shapeOf is the configuration that -shape names: r2 bench's, or a tiny one for the simulator.
func shapeOf(name string) (weights.Config, error) {
	if name == "tiny" {
		c := bench.Shapes()["qwen2.5-7b"]
		c.Layers, c.Hidden, c.Heads, c.KVHeads, c.HeadDim, c.FFN, c.Vocab, c.Context = 2, 64, 4, 2, 16, 96, 512, 512
		return c, nil
	}
	c, ok := bench.Shapes()[name]
	if !ok {
		return c, fmt.Errorf("-shape %s: want tiny, or one of r2 bench's", name)
	}
	return c, nil
}

// shardBytes is how large a file of weights grows.
const shardBytes = 4 << 30

// writeModel writes a random model: configuration, a byte tokenizer, weights in bf16 in shards. Matrices are
// normal, of deviation 0.02, norms one, biases small.
func writeModel(o options, args []string) error {
	dir, err := only(args, "the folder to write")
	if err != nil {
		return err
	}
	cfg, err := shapeOf(o.shape)
	if err != nil {
		return err
	}
	cfg.DType = "bfloat16"
	return weights.WriteDir(dir, func(tmp string) error {
		if err := os.WriteFile(filepath.Join(tmp, "config.json"), cfg.JSON(), 0o666); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(tmp, "tokenizer.json"), byteTokenizer(cfg.Vocab), 0o666); err != nil {
			return err
		}
		return writeShards(tmp, cfg, o.seed)
	})
}

// writeShards writes the weights and their index.
func writeShards(dir string, cfg weights.Config, seed uint64) error {
	all := cfg.Parameters()
	var shards [][]weights.Parameter
	size, total := 0, 0
	for _, p := range all {
		n := 2 * weights.Tensor{Shape: p.Shape}.Len()
		if size == 0 || size+n > shardBytes || cfg.Vocab < 1000 && len(shards) < 2 && total > 1<<16 {
			shards, size = append(shards, nil), 0
		}
		last := len(shards) - 1
		shards[last], size, total = append(shards[last], p), size+n, total+n
	}
	index := map[string]string{}
	for i, shard := range shards {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
		var tensors []weights.Tensor
		for _, p := range shard {
			tensors = append(tensors, random(p, seed))
			index[p.Name] = name
		}
		if err := weights.WriteSafetensors(filepath.Join(dir, name), tensors, map[string]string{"format": "pt"}); err != nil {
			return err
		}
		fmt.Printf("%s: %d tensors\n", name, len(shard))
	}
	b, err := json.MarshalIndent(map[string]any{"metadata": map[string]int{"total_size": total}, "weight_map": index}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "model.safetensors.index.json"), b, 0o666)
}

// random makes a tensor, a piece of it on each processor; the pieces do not depend on how many there are.
func random(p weights.Parameter, seed uint64) weights.Tensor {
	h := fnv.New64a()
	h.Write([]byte(p.Name))
	v := make([]float32, weights.Tensor{Shape: p.Shape}.Len())
	const piece = 1 << 20
	var wait sync.WaitGroup
	turn := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for at := range turn {
				rng := rand.New(rand.NewPCG(seed+uint64(at), h.Sum64()))
				for i := at; i < min(at+piece, len(v)); i++ {
					switch {
					case len(p.Shape) == 2:
						v[i] = float32(0.02 * rng.NormFloat64())
					case strings.HasSuffix(p.Name, "bias"):
						v[i] = float32(0.1 * rng.NormFloat64())
					default:
						v[i] = 1
					}
				}
			}
		})
	}
	for at := 0; at < len(v); at += piece {
		turn <- at
	}
	close(turn)
	wait.Wait()
	return weights.Encode(p.Name, weights.BF16, p.Shape, v)
}

// byteTokenizer is a tokenizer.json whose first 256 ids are the bytes, in GPT-2's letters for them; the rest
// are words that no text has.
func byteTokenizer(vocab int) []byte {
	ids := map[string]int{}
	spare := 256
	for b := range 256 {
		letter := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae) {
			letter = rune(spare)
			spare++
		}
		ids[string(letter)] = b
	}
	for i := 256; i < vocab; i++ {
		ids[fmt.Sprintf("<%d>", i)] = i
	}
	level := map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}
	b, err := json.Marshal(map[string]any{"version": "1.0", "added_tokens": []any{}, "normalizer": nil, "pre_tokenizer": level, "decoder": level,
		"post_processor": nil, "truncation": nil, "padding": nil,
		"model": map[string]any{"type": "BPE", "vocab": ids, "merges": []string{}, "dropout": nil, "unk_token": nil,
			"continuing_subword_prefix": nil, "end_of_word_suffix": nil, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false}})
	if err != nil {
		panic(err) // strings and numbers
	}
	return b
}
