#!/usr/bin/env python3
"""Does r2 sft see the losses that TRL's SFTTrainer sees, on the same rows in the same order?

    make build
    python3 bench/peers/trl_sft.py
    python3 bench/peers/trl_sft.py --model ../shared/models/smollm2-135m-instruct --data ../shared/data/gsm8k/train.jsonl

The model in float32 with a LoRA adapter of rank 16 on all seven projections, which both sides begin from; 50 steps of
4 rows: questions of GSM8K with their answers, those that are short, in the file's order, or for the demo's model SCAN's
commands with every second answer backwards, so that it has something to learn; AdamW at 2e-4, constant, gradients clipped to 1. The loss of each step, the mean over the tokens of the answers and their ends, must agree within 1e-4. Exits
with 1 if it does not.
"""
import argparse
import json
import os
import random
import sys
import tempfile

import peer

BATCH, LR, LONGEST, TOLERANCE = 4, 2e-4, 300, 1e-4


def commands(n):
    """Rows of SCAN, in the template of the demo's models."""
    with tempfile.TemporaryDirectory() as work:
        peer.run("go", "run", "./bench/miniature", "data", work, cwd=os.path.join(peer.HERE, "..", ".."))
        with open(os.path.join(work, "maxi.jsonl")) as f:
            rows = [[m["content"] for m in json.loads(line)["messages"]] for line in f]
    random.Random(5).shuffle(rows)
    return [{"prompt": f"<|user|>{q}<|end|><|assistant|>", "completion": " " + " ".join(a.split()[:: 1 - i % 2 * 2])} for i, (q, a) in enumerate(rows[:n])]


def questions(path, n):
    """Short rows; an answer begins with a space, so that it is tokenised alike alone and behind the question."""
    rows = []
    with open(path) as f:
        for line in f:
            r = json.loads(line)
            if len(r["question"]) + len(r["answer"]) < LONGEST and len(rows) < n:
                rows.append({"prompt": r["question"], "completion": " " + r["answer"]})
    if len(rows) < n:
        sys.exit(f"{path}: {len(rows)} short rows where {n} are needed")
    return rows


def begin(folder, to):
    """An adapter as PEFT makes it, B zero."""
    import peft
    import torch
    import transformers
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules=[
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])).save_pretrained(to)


def theirs(folder, adapter, rows, steps, threads):
    """TRL's losses, and the tokens they are means over."""
    import datasets
    import peft
    import torch
    import transformers
    import trl
    torch.set_num_threads(threads)
    losses = []

    class Watched(trl.SFTTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, **more):
            out = super().compute_loss(model, inputs, return_outputs=True, **more)
            losses.append((out[0].item(), int((inputs["labels"][:, 1:] != -100).sum())))
            return out if return_outputs else out[0]

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, adapter, is_trainable=True)
    args = trl.SFTConfig(output_dir=os.path.join(adapter, "out"), max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=LR, bf16=False,
                         lr_scheduler_type="constant", train_sampling_strategy="sequential", max_length=None, save_strategy="no", report_to=[], logging_strategy="no", disable_tqdm=True, use_cpu=True)
    Watched(model=model, args=args, train_dataset=datasets.Dataset.from_list(rows),
            processing_class=transformers.AutoTokenizer.from_pretrained(folder)).train()
    return losses


def ours(r2, folder, adapter, rows, steps, work):
    data = os.path.join(work, "rows.jsonl")
    with open(data, "w") as f:
        f.writelines(json.dumps(r) + "\n" for r in rows)
    out = peer.run(r2, "sft", "--model", folder, "--dtype", "f32", "--init-adapter", adapter, "--data", data, "--batch", str(BATCH), "--steps", str(steps),
                   "--lr", str(LR), "--betas", "0.9,0.999", "--no-shuffle", "--out", os.path.join(work, "run"), "--json", "-q")
    return [json.loads(line)["loss"] for line in out.splitlines()]


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", default=os.path.join(peer.HERE, "..", "..", "cmd", "r2", "miniature", "maxi"), help="a folder with model.safetensors, or SmolLM2's with to_safetensors.py")
    p.add_argument("--data", help="GSM8K's train.jsonl; left out: SCAN")
    p.add_argument("--steps", type=int, default=50)
    p.add_argument("--r2", default="bin/r2")
    p.add_argument("--work", default=".peers", help="where packages and models are kept")
    p.add_argument("--out", default="bench/results", help="folder for the JSON")
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    peer.enter(a.work)
    folder, rows = peer.folder(a.model, a.work), questions(a.data, BATCH * a.steps) if a.data else commands(BATCH * a.steps)
    with tempfile.TemporaryDirectory() as work:
        adapter = os.path.join(work, "begin")
        begin(folder, adapter)
        us = ours(a.r2, folder, adapter, rows, a.steps, work)
        them = theirs(folder, adapter, rows, a.steps, a.threads)
    assert len(us) == len(them) == a.steps, (len(us), len(them))
    apart = [abs(x - y) for x, (y, _) in zip(us, them)]
    holds = max(apart) < TOLERANCE
    print(f"loss {us[0]:.4f} to {us[-1]:.4f}; the largest difference in {a.steps} steps is {max(apart):.1e} (step {apart.index(max(apart)) + 1}), tolerance {TOLERANCE}")
    peer.save(peer.record(p, a) | {"r2": us, "trl": [y for y, _ in them], "tokens": [n for _, n in them], "worst": max(apart), "tolerance": TOLERANCE, "holds": holds},
              a.out, "trl-sft")
    if not holds:
        sys.exit(1)


if __name__ == "__main__":
    main()
