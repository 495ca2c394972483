#!/usr/bin/env python3
"""Measure one GRPO step of r2 beside one of TRL with PEFT, in one run, and write what came out to bench/results.

    make build
    python3 bench/peers/trl_grpo.py --model ../shared/models/smollm2-135m-instruct --repeat 3

The packages, at the versions in peer.py, are installed from PyPI the first time. Both sides train a LoRA adapter of
rank 16 on all seven projections of SmolLM2-135M: 8 prompts of 64 tokens, 8 completions of each, 128 tokens a completion
(nothing ends one before), reward the count of even ids, KL to the base with weight 0.04, one optimizer step. A step counts
from its first token drawn to its update; each run takes one step that does not count and then the steps of a repetition.

TRL is measured in float32 with what it sets else by itself, as it is without being told anything (bfloat16 by autocast),
and in the settings of VARIANTS that should be faster; the fastest stands for the best. vLLM is not among them: PyPI has
no build of it for a CPU. --limit bounds each run and --minutes the whole: what has not begun by then is left out,
and said so.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import peer

SHAPE = {"prompts": 8, "samples": 8, "prompt": 64, "tokens": 128}
SMALL = {"prompts": 2, "samples": 8, "prompt": 16, "tokens": 8}
# Arguments of GRPOConfig, and the type of the weights. The first is what the target of 3 speaks of.
VARIANTS = {
    "f32": ("float32", {"bf16": False}),
    "bf16 weights and autocast, nothing computed twice, 16 rows": ("bfloat16", {"gradient_checkpointing": False, "per_device_train_batch_size": 16}),
    "f32, nothing computed twice, 16 rows": ("float32", {"bf16": False, "gradient_checkpointing": False, "per_device_train_batch_size": 16}),
    "as it comes": ("float32", {}),
    "bf16 weights, nothing computed twice, 16 rows": ("bfloat16", {"bf16": False, "gradient_checkpointing": False, "per_device_train_batch_size": 16}),
    "f32, nothing computed twice, 8 rows": ("float32", {"bf16": False, "gradient_checkpointing": False}),
}
TARGETS = {"f32": 3.0, "best": 2.0}


def step_of_trl(variant, folder, steps, threads, seed=1):
    """Take steps and print the seconds of each, and of its sampling, as they end. Run in a process of its own."""
    import datasets
    import peft
    import torch
    import transformers
    import trl

    torch.set_num_threads(threads)
    dtype, settings = VARIANTS[variant]
    tok = transformers.AutoTokenizer.from_pretrained(folder)
    words = tok(open(os.path.join(peer.HERE, "..", "..", "LICENSE")).read())["input_ids"]
    prompts = []
    for at in range(0, len(words), SHAPE["prompt"]):  # texts of so many tokens
        text = tok.decode(words[at:at + SHAPE["prompt"]])
        if len(tok(text)["input_ids"]) == SHAPE["prompt"]:
            prompts.append({"prompt": text})
    rows = SHAPE["prompts"] * SHAPE["samples"]
    more = {"per_device_train_batch_size": 8, **settings}
    args = trl.GRPOConfig(
        output_dir=os.path.join(folder, "out"), max_steps=steps, num_generations=SHAPE["samples"], max_completion_length=SHAPE["tokens"],
        gradient_accumulation_steps=rows // more["per_device_train_batch_size"], beta=0.04, learning_rate=1e-5, temperature=1.0,
        generation_kwargs={"min_new_tokens": SHAPE["tokens"]}, save_strategy="no", report_to=[], logging_steps=1, seed=seed, disable_tqdm=True,
        use_cpu=True, **more)

    def even(completion_ids, **_):
        assert all(len(c) == SHAPE["tokens"] for c in completion_ids)
        return [float(sum(1 - t % 2 for t in c)) for c in completion_ids]

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_, **__):
            self.begin, self.sampling = time.perf_counter(), 0.0

        def on_step_end(self, *_, **__):
            print(json.dumps({"seconds": time.perf_counter() - self.begin, "sample": self.sampling}), flush=True)

    clock = Clock()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    trainer = trl.GRPOTrainer(
        model=model, reward_funcs=even, args=args, train_dataset=datasets.Dataset.from_list(prompts), processing_class=tok, callbacks=[clock],
        peft_config=peft.LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]))
    generate = trainer._generate_single_turn

    def timed(*a, **k):
        begin = time.perf_counter()
        out = generate(*a, **k)
        clock.sampling += time.perf_counter() - begin
        return out

    trainer._generate_single_turn = timed
    trainer.train()


def theirs(a, variant, folder):
    """The steps of one run: seconds, and those of them that went into sampling."""
    command = [sys.executable, __file__, "--model", a.model, "--one", variant, "--steps", str(1 + a.steps), "--work", a.work, "--threads", str(a.threads)]
    command += ["--small"] * a.small
    env = dict(os.environ, OMP_NUM_THREADS=str(a.threads), PYTHONWARNINGS="ignore")
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, timeout=a.limit)
        out, code, errors = done.stdout, done.returncode, done.stderr
    except subprocess.TimeoutExpired as e:
        out, code, errors = e.stdout or "", 0, ""
        out = out.decode() if isinstance(out, bytes) else out
    if code:
        sys.exit(f"TRL ({variant}): exit {code}\n{errors[-3000:]}")
    return [json.loads(line) for line in out.splitlines() if line.startswith('{"seconds"')][1:]


def ours(a, folder, dtype):
    """The rows of r2 bench grpo; the last is the whole step."""
    weights, _, activations = dtype.partition(":")
    out = peer.run(a.r2, "bench", "grpo", "--model", folder, "--dtype", weights, *["--activations", activations] * bool(activations), "--threads", str(a.threads), "--repeat", str(a.steps), "--json", "-q",
                   *(f"--{k}={v}" for k, v in SHAPE.items()))
    return [json.loads(line) for line in out.splitlines()]


def measure(a, folder):
    end, left_out = time.monotonic() + 60 * a.minutes, []
    peer_steps, mine, loads = {}, {}, []
    for turn in range(a.repeat):
        for dtype in a.dtype:
            loads.append(os.getloadavg()[0])
            rows = ours(a, folder, dtype)
            mine.setdefault(dtype, []).append(rows)
            print(f"r2 {dtype}: {rows[-1]['seconds']:.1f} s, load {loads[-1]:.1f}", file=sys.stderr)
        for variant in a.variants:
            if time.monotonic() > end:
                left_out.append(f"{variant}, repetition {turn + 1}: out of time")
                continue
            loads.append(os.getloadavg()[0])
            steps = theirs(a, variant, folder)
            if not steps:
                left_out.append(f"{variant}, repetition {turn + 1}: no step that counts within {a.limit} s")
                continue
            peer_steps.setdefault(variant, []).extend(steps)
            print(f"TRL {variant}: {statistics.median(s['seconds'] for s in steps):.1f} s, load {loads[-1]:.1f}", file=sys.stderr)
    return peer_steps, mine, loads, left_out


def table(peer_steps, mine):
    """The rows of the result, and its ratios."""
    rows = []
    for variant, steps in peer_steps.items():
        rows.append({"side": "TRL", "settings": variant, "seconds": statistics.median(s["seconds"] for s in steps),
                     "sample": statistics.median(s["sample"] for s in steps), "all": [round(s["seconds"], 2) for s in steps]})
    for dtype, runs in mine.items():
        parts = {p: statistics.median(row["seconds"] for run in runs for row in run if row["case"].startswith(p)) for p in ("step", "sample", "forward", "backward")}
        rows.append({"side": "r2", "settings": dtype, "seconds": parts.pop("step"), **parts, "bound": statistics.median(
            SHAPE["prompts"] * SHAPE["samples"] * SHAPE["tokens"] / run[-1]["bound"] for run in runs), "all": [round(x, 2) for run in runs for x in run[-1]["seconds_each"]]})
    us = {r["settings"]: r["seconds"] for r in rows if r["side"] == "r2"}
    them = {r["settings"]: r["seconds"] for r in rows if r["side"] == "TRL"}
    ratios = {}
    if "f32" in us and "f32" in them:
        ratios["f32"] = them["f32"] / us["f32"]
    if us and them:
        ratios["best"] = min(them.values()) / min(us.values())
    return rows, ratios


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", required=True, help="the folder of the GGUF, with to_safetensors.py")
    p.add_argument("--r2", default="bin/r2")
    p.add_argument("--work", default=".peers", help="where packages and models are kept")
    p.add_argument("--out", default="bench/results", help="folder for the JSON")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeat", type=int, default=1)
    p.add_argument("--steps", type=int, default=1, help="steps of a repetition that count")
    p.add_argument("--limit", type=int, default=1200, help="seconds a run of TRL may take")
    p.add_argument("--minutes", type=int, default=60, help="after which no run is begun")
    p.add_argument("--dtype", nargs="+", default=["f32", "bf16", "bf16:bf16"], help="of r2's weights, and after a colon of its activations")
    p.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    p.add_argument("--small", action="store_true", help="hardly any work: whether all of it runs, its numbers say nothing")
    p.add_argument("--one", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.small:
        SHAPE.update(SMALL)
    peer.enter(a.work)
    folder = peer.folder(a.model, a.work)
    if a.one:
        return step_of_trl(a.one, folder, a.steps, a.threads)
    record = peer.record(p, a) | {"shape": SHAPE, "threads": a.threads, "variants": {k: VARIANTS[k] for k in a.variants}}
    peer_steps, mine, loads, left_out = measure(a, folder)
    rows, ratios = table(peer_steps, mine)
    record |= {"load_average": {"least": min(loads), "median": statistics.median(loads), "most": max(loads)}, "left_out": left_out, "rows": rows,
               "ratios": ratios, "targets": TARGETS}
    print("| side | settings | step, s | sampling, s | all |\n|---|---|---|---|---|")
    for r in rows:
        print(f"| {r['side']} | {r['settings']} | {r['seconds']:.1f} | {r['sample']:.1f} | {', '.join(map(str, r['all']))} |")
    for name, x in ratios.items():
        print(f"{name}: {x:.2f} times as fast; wanted {TARGETS[name]}")
    for line in left_out:
        print("left out:", line)
    peer.save(record, a.out, "trl")


if __name__ == "__main__":
    main()
