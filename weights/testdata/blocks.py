# blocks.py writes blocks.json: values, their blocks by Q8_0 and Q4_0, and the elements of blocks of Q8_0, Q4_0,
# Q4_1 and the K types as float32 bits, all from ggml's Python package gguf 0.17.1. It cannot make blocks of
# K types: their bytes are random, with random halves for scales.
import json
import gguf, numpy as np
from gguf import GGMLQuantizationType as T, quants
r = np.random.default_rng(6)
bits = lambda a: np.asarray(a, dtype=np.float32).view(np.uint32).ravel().tolist()
out = {}
for t in (T.Q8_0, T.Q4_0, T.Q4_1):
    x = (r.standard_normal((1, 128)) * np.repeat([1e-3, 1, 300, 0], 32)).astype(np.float32)
    b = quants.quantize(x, t)
    out[t.name] = {"values": bits(x), "blocks": b.tobytes().hex(), "bits": bits(quants.dequantize(b, t))}
halves = {T.Q2_K: (80, 82), T.Q3_K: (108,), T.Q4_K: (0, 2), T.Q5_K: (0, 2), T.Q6_K: (208,)}
for t, at in halves.items():
    size = gguf.GGML_QUANT_SIZES[t][1]
    b = r.integers(0, 256, (1, 2 * size), dtype=np.uint8)
    for block in range(2):
        for i in at:
            b[0, block * size + i:block * size + i + 2] = np.array([r.standard_normal() * 10.0 ** r.integers(-5, 2)], dtype=np.float16).view(np.uint8)
    out[t.name] = {"blocks": b.tobytes().hex(), "bits": bits(quants.dequantize(b, t))}
json.dump(out, open("blocks.json", "w"), separators=(",", ":"))
