# q5.py writes q5.json: blocks of Q5_0 and Q5_1 and their elements' float32 bits, both from ggml's
# Python package gguf.
import json
import gguf, numpy as np
from gguf import GGMLQuantizationType as T, quants
r = np.random.default_rng(5)
out = {}
for t in (T.Q5_0, T.Q5_1):
    x = (r.standard_normal((1, 96)) * np.repeat([1e-3, 1, 300], 32)).astype(np.float32)
    b = quants.quantize(x, t)
    out[t.name] = {"blocks": b.tobytes().hex(), "bits": quants.dequantize(b, t).astype(np.float32).view(np.uint32).ravel().tolist()}
json.dump(out, open("q5.json", "w"), separators=(",", ":"))
