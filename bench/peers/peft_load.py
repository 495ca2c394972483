#!/usr/bin/env python3
"""Do PEFT and r2 read each other's adapters to equal numbers, and does transformers load what r2 merge writes?

    make build && make peers

On the tiny models in the repository, two in float32 and one in float16, and one of them in bfloat16: r2 trains an adapter and PEFT loads it; PEFT makes
one (of random weights, B too) and r2 loads it; r2 merges each and transformers loads the result. What is compared is
the log-probability of every id of the vocabulary at several places, so all logits up to their common constant, and
each merged weight with W + scale·B·A in float64, rounded to W's type. With --model, the log-probabilities of a text
under SmolLM2 with both adapters too. Both sides compute with the stored weights in float32. Exits with 1 past a tolerance.
"""
import argparse
import json
import os
import random
import shutil
import sys
import tarfile
import tempfile

import peer

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {"all": dict(r=8, lora_alpha=16, target_modules=ALL), "rslora on two": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], use_rslora=True)}
# Of a log-probability. Both sides round to float32 in their own order: SmolLM2 alone differs by as much from float64.
TOLERANCE = {"tiny": 2e-5, "smollm2": 2e-4}


def logprobs_r2(a, model, rows, adapter=None):
    """log p of each token of each row but its first."""
    given = "".join(json.dumps({"tokens": r}) + "\n" for r in rows)
    more = ["--adapter", "a=" + adapter] if adapter else []
    out = peer.run(a.r2, "logprobs", "--model", model, "--dtype", "f32", "--input", "-", "--json", "-q", *more, input=given)
    return [json.loads(line)["logprobs"][1:] for line in out.splitlines()]


def logprobs_torch(model, rows):
    """The same as a matrix over the vocabulary for each row."""
    import torch
    with torch.no_grad():
        return [torch.log_softmax(model(torch.tensor([r])).logits[0, :-1].double(), -1) for r in rows]


def compare(a, path, theirs, texts, vocab, adapter=None):
    """The largest difference between r2 and a torch model: of all ids at the end of each text, or of the text's own."""
    worst, n = 0.0, 0
    for t in texts:
        rows = [t + [v] for v in range(vocab)] if vocab else [t]
        want = logprobs_torch(theirs, [t + [0]] if vocab else [t])[0]
        for row, got in zip(rows, logprobs_r2(a, path, rows, adapter)):
            for at in [len(t) - 1] if vocab else range(len(got)):
                worst, n = max(worst, abs(got[at] - want[at][row[at + 1]].item())), n + 1
    return worst, n


def train(a, path, out, case, texts):
    """An adapter that r2 makes."""
    data = out + ".jsonl"
    with open(data, "w") as f:
        f.writelines(json.dumps({"tokens": t}) + "\n" for t in texts)
    lora = f"r={case['r']},alpha={case['lora_alpha']},targets={'+'.join(case['target_modules'])},rslora={str(case.get('use_rslora', False)).lower()}"
    peer.run(a.r2, "sft", "--model", path, "--data", data, "--steps", "20", "--lr", "1e-2", "--lora", lora, "--out", out, "-q")
    return os.path.join(out, "adapter")


def merged_off(base, adapter, merged):
    """How many merged weights are not W + scale·B·A, rounded once, and by how many steps of the type at most."""
    import torch
    from peft.utils import load_peft_weights
    from safetensors.torch import load_file
    with open(os.path.join(adapter, "adapter_config.json")) as f:
        c = json.load(f)
    scale = c["lora_alpha"] / (c["r"] ** 0.5 if c.get("use_rslora") else c["r"])
    low = load_peft_weights(adapter, device="cpu")
    old, new = load_file(os.path.join(base, "model.safetensors")), load_file(os.path.join(merged, "model.safetensors"))
    assert old.keys() == new.keys(), "merge changes which tensors there are"
    off, total = 0, 0
    for name, w in old.items():
        pair = [low.get(f"base_model.model.{name.removesuffix('.weight')}.lora_{x}.weight") for x in "AB"]
        want = w if pair[0] is None else (w.double() + scale * (pair[1].double() @ pair[0].double())).to(w.dtype)
        assert new[name].dtype == w.dtype, name
        off, total = off + int((new[name] != want).sum()), total + w.numel()
        assert torch.allclose(new[name].double(), want.double(), rtol=2 * torch.finfo(w.dtype).eps, atol=1e-7), name
    return off, total


def rounded(path, to):
    """A copy of a model in bfloat16."""
    import torch
    from safetensors.torch import load_file, save_file
    shutil.copytree(path, to)
    file = os.path.join(to, "model.safetensors")
    save_file({k: v.to(torch.bfloat16) for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    with open(os.path.join(to, "config.json")) as f:
        config = json.load(f) | {"dtype": "bfloat16"}
    with open(os.path.join(to, "config.json"), "w") as f:
        json.dump(config, f)


def check(a, name, path, work, vocab, tolerance):
    """All comparisons on one model."""
    import peft
    import torch
    import transformers
    rng, rows = random.Random(1), []
    base = lambda p: transformers.AutoModelForCausalLM.from_pretrained(p, dtype=torch.float32).eval()
    size = base(path).config.vocab_size
    texts = [[rng.randrange(3, size) for _ in range(n)] for n in (1, 7, 24)] if vocab else [[rng.randrange(20, size) for _ in range(48)]]
    for case, settings in CASES.items():
        begin = os.path.join(work, f"{name}-{case}".replace(" ", "-"))
        ours = train(a, path, begin + "-r2", settings, [[rng.randrange(3, size) for _ in range(20)] for _ in range(4)])
        model = peft.get_peft_model(base(path), peft.LoraConfig(**settings, init_lora_weights=False))
        for p in model.parameters():  # PEFT's start is for training; these are as large as a trained adapter's
            if p.requires_grad:
                torch.nn.init.normal_(p, std=0.05)
        model.save_pretrained(begin + "-peft")
        for side, adapter in ("r2", ours), ("PEFT", begin + "-peft"):
            loaded = peft.PeftModel.from_pretrained(base(path), adapter).eval()
            bare, with_it = logprobs_torch(base(path), texts[-1:])[0], logprobs_torch(loaded, texts[-1:])[0]
            moved = float((bare - with_it).abs().max())
            worst, n = compare(a, path, loaded, texts, size if vocab else 0, adapter)
            to = adapter.rstrip("/") + "-merged"
            peer.run(a.r2, "merge", "--model", path, "--adapter", adapter, "--out", to, "-q")
            m, _ = compare(a, to, base(to), texts, size if vocab else 0)
            off, total = merged_off(path, adapter, to)
            rows.append({"model": name, "adapter": case, "written_by": side, "it_moves_logprobs_by": moved, "worst": worst, "compared": n,
                         "merged_worst": m, "merged_weights_off": off, "merged_weights": total, "tolerance": tolerance,
                         "holds": worst <= tolerance and m <= tolerance and off <= total * 1e-5 and moved > 0.01})
            r = rows[-1]
            print(f"{name}, {case}, by {side}: worst {worst:.1e} of {n} (the adapter moves them by {moved:.2f}), merged {m:.1e}, "
                  f"{off} of {total} merged weights off{'' if r['holds'] else '   PAST ITS TOLERANCE'}", file=sys.stderr)
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", help="the folder of SmolLM2's GGUF, with to_safetensors.py")
    p.add_argument("--r2", default="bin/r2")
    p.add_argument("--work", default=".peers", help="where packages and models are kept")
    p.add_argument("--out", default="bench/results", help="folder for the JSON")
    a = p.parse_args()
    peer.enter(a.work)
    rows = []
    with tempfile.TemporaryDirectory() as work:
        with tarfile.open(os.path.join(peer.HERE, "..", "..", "model", "modeltest", "testdata", "goldens.tar.gz")) as t:
            t.extractall(work, filter="data")
        rounded(os.path.join(work, "goldens", "qwen2_f32"), os.path.join(work, "goldens", "qwen2_bf16"))
        for config in sorted(d for d, _, files in os.walk(work) if "config.json" in files):
            rows += check(a, os.path.basename(config), config, work, True, TOLERANCE["tiny"])
        if a.model:
            rows += check(a, "smollm2", peer.folder(a.model, a.work), work, False, TOLERANCE["smollm2"])
    peer.save(peer.record(p, a) | {"rows": rows, "holds": all(r["holds"] for r in rows)}, a.out, "peft")
    if not all(r["holds"] for r in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
