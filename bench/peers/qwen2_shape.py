#!/usr/bin/env python3
"""Write a GGUF of the shape of Qwen2-0.5B with random weights and Qwen2's vocabulary, for bench/peers/llamacpp.py: what a
kernel takes does not depend on what its numbers say. Needs PyPI's gguf (and numpy).

    python3 bench/peers/qwen2_shape.py --vocab ../shared/data/ggml_vocab/ggml-vocab-qwen2.gguf --out .peers/qwen2-0.5b.gguf
"""
import argparse
import os

import gguf
import numpy as np

LAYERS, WIDTH, INNER, HEADS, KV_HEADS = 24, 896, 4864, 14, 2


def tensors(vocabulary):
    """Names and shapes, of llama.cpp's qwen2 with tied embeddings."""
    yield "token_embd.weight", (vocabulary, WIDTH)
    yield "output_norm.weight", (WIDTH,)
    kv = WIDTH // HEADS * KV_HEADS
    for i in range(LAYERS):
        for name, out, cols in ("attn_q", WIDTH, WIDTH), ("attn_k", kv, WIDTH), ("attn_v", kv, WIDTH):
            yield f"blk.{i}.{name}.weight", (out, cols)
            yield f"blk.{i}.{name}.bias", (out,)
        yield f"blk.{i}.attn_output.weight", (WIDTH, WIDTH)
        yield f"blk.{i}.ffn_gate.weight", (INNER, WIDTH)
        yield f"blk.{i}.ffn_up.weight", (INNER, WIDTH)
        yield f"blk.{i}.ffn_down.weight", (WIDTH, INNER)
        yield f"blk.{i}.attn_norm.weight", (WIDTH,)
        yield f"blk.{i}.ffn_norm.weight", (WIDTH,)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--vocab", required=True, help="a GGUF with the vocabulary")
    p.add_argument("--out", required=True)
    a = p.parse_args()
    w = gguf.GGUFWriter(a.out + ".part", "qwen2")
    w.add_name("Qwen2-0.5B's shape, random weights")
    w.add_context_length(32768)
    w.add_embedding_length(WIDTH)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(INNER)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV_HEADS)
    w.add_rope_freq_base(1e6)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_file_type(gguf.LlamaFileType.ALL_F32)
    for name, f in gguf.GGUFReader(a.vocab).fields.items():
        if not name.startswith("tokenizer."):
            continue
        kind = f.types[0]
        if name == "tokenizer.ggml.tokens":
            vocabulary = len(f.data)
        w.add_key_value(name, f.contents(), kind, f.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    rng = np.random.default_rng(1)
    for name, shape in tensors(vocabulary):
        if name.endswith("norm.weight"):
            w.add_tensor(name, np.ones(shape, np.float32))
        else:
            w.add_tensor(name, (rng.standard_normal(shape, np.float32) * np.float32(0.02)))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    os.rename(a.out + ".part", a.out)


if __name__ == "__main__":
    main()
