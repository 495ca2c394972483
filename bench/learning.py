#!/usr/bin/env python3
"""Does GRPO teach? Policies that do a task some of the time, trained from three seeds with nothing to go by but a checker.

    make build && python3 bench/learning.py --out bench/results/learning.json
    python3 bench/learning.py --tasks sums --model SmolLM2-135M-Instruct.Q4_1.gguf --out bench/results/sums.json

  scan        the largest of the demo's models after a short supervised training on SCAN commands of which a third are
              answered rightly, a third backwards and a third with an action too many; reward 1 for SCAN's answer
  sums        --model after a short supervised training on sums of two digits, written in three ways ("7",
              "<answer>7</answer>", "The answer is 7."); reward 1 for the right sum in the second
  decomposer  the demo's decomposer with its adapter spoilt (its scale tripled and turned round); reward 1 where the router
              reaches SCAN's answer by the plan it wrote

Reward is the mean over the completions drawn in training, of the first and of the last steps of a run; the interval of
the rise is Student's, over the seeds, 95 %. Parity is the largest of all steps.
"""
import argparse
import datetime
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
MINI = os.path.join(ROOT, "cmd", "r2", "miniature")
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # by the number of seeds


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def write(path, rows):
    with open(path, "w") as f:
        f.writelines(json.dumps(r) + "\n" for r in rows)
    return path


def scan(a, work):
    run("go", "run", os.path.join(ROOT, "bench", "miniature"), "data", work + "/scan")
    with open(work + "/scan/maxi.jsonl") as f:
        rows = [json.loads(line)["messages"] for line in f]
    rng, mixed = random.Random(7), []
    rng.shuffle(rows)
    for (question, answer) in rows[:2000]:
        acts = answer["content"].split()
        acts = rng.choice([acts, acts[::-1], acts + acts[-1:]])
        mixed.append({"messages": [question, {"role": "assistant", "content": " " + " ".join(acts)}]})
    model = os.path.join(MINI, "maxi")
    run(a.r2, "sft", "--model", model, "--data", write(work + "/mixed.jsonl", mixed), "--steps", "120", "--batch", "32", "--lr", "2e-3",
        "--schedule", "cosine", "--lora", "r=16,alpha=32", "--out", work + "/begin", "-q")
    return ["--model", model, "--init-adapter", work + "/begin/adapter", "--task", "scan", "--prompts", "16", "--samples", "8", "--max-tokens", "64",
            "--lr", "1e-3", "--kl", "0.01"], 60, 3


def sums(a, work):
    if not a.model:
        sys.exit("sums needs --model")
    rng, rows = random.Random(3), []
    pairs = [(x, y) for x in range(10) for y in range(10)]
    for _ in range(8):
        rng.shuffle(pairs)
        rows += [{"prompt": f"{x} + {y} =", "completion": rng.choice([" {}", " <answer>{}</answer>", " The answer is {}."]).format(x + y)} for x, y in pairs]
    run(a.r2, "sft", "--model", a.model, "--dtype", "bf16", "--data", write(work + "/rows.jsonl", rows), "--steps", "150", "--batch", "16", "--lr", "1e-3",
        "--schedule", "cosine", "--lora", "r=8,alpha=16", "--out", work + "/begin", "-q")
    data = write(work + "/sums.jsonl", [{"prompt": f"{x} + {y} =", "answer": f" <answer>{x + y}</answer>"} for x, y in sorted(pairs)])
    judge = "import json, sys\nfor line in sys.stdin:\n    r = json.loads(line); print(json.dumps({'reward': float(r['completion'] == r['answer'])}))\n"
    with open(work + "/judge.py", "w") as f:
        f.write(judge)
    return ["--model", a.model, "--dtype", "bf16", "--init-adapter", work + "/begin/adapter", "--data", data, "--reward-cmd", f"python3 {work}/judge.py",
            "--prompts", "8", "--samples", "8", "--max-tokens", "12", "--lr", "3e-4", "--kl", "0.01"], 60, 3


def decomposer(a, work):
    begin = os.path.join(work, "spoilt")
    shutil.copytree(os.path.join(MINI, "decomposer"), begin)
    file = os.path.join(begin, "adapter_config.json")
    with open(file) as f:
        config = json.load(f)
    config["lora_alpha"] *= -3
    write(file, [config])
    return ["--module", "decomposer", "--config", os.path.join(MINI, "r2.yaml"), "--task", "scan", "--init-adapter", begin, "--prompts", "16", "--samples", "8",
            "--max-tokens", "96", "--lr", "1e-3", "--kl", "0"], 30, 3


def curve(a, flags, steps, window, seed, out):
    """A run's rewards, and what else there is to say about it. window steps make the first mean, and the last."""
    run(a.r2, "grpo", *flags, "--steps", str(steps), "--seed", str(seed), "--out", out, "-q")
    with open(out + "/metrics.jsonl") as f:
        m = [json.loads(line) for line in f]
    reward = [row["reward_mean"] for row in m]
    return {"seed": seed, "steps": len(m), "first": statistics.mean(reward[:window]), "last": statistics.mean(reward[-window:]), "window": window,
            "parity": max(row["parity"] for row in m), "failed": sum(row["failed"] for row in m),
            "seconds": round(sum(row["seconds"] for row in m), 2), "reward": [round(x, 4) for x in reward]}


def learn(a, name):
    """The curves of a task, and by how much they rise."""
    with tempfile.TemporaryDirectory() as work:
        flags, steps, window = {"scan": scan, "sums": sums, "decomposer": decomposer}[name](a, work)
        runs = []
        for seed in range(1, a.seeds + 1):
            runs.append(curve(a, flags, a.steps or steps, window, seed, f"{work}/seed{seed}"))
            r = runs[-1]
            print(f"{name}, seed {seed}: {r['first']:.3f} -> {r['last']:.3f} in {r['steps']} steps, parity {r['parity']}, {r['failed']} rewards failed",
                  file=sys.stderr)
    rise = [r["last"] - r["first"] for r in runs]
    out = {"task": name, "grpo": [os.path.relpath(f, work) if f.startswith(work) else os.path.basename(f) if f.startswith("/") else f for f in flags],
           "runs": runs, "rise": {"mean": statistics.mean(rise)}}
    if len(rise) in STUDENT:
        half = STUDENT[len(rise)] * statistics.stdev(rise) / math.sqrt(len(rise))
        out["rise"] |= {"low": out["rise"]["mean"] - half, "high": out["rise"]["mean"] + half}
    print(name, "rises by", {k: round(v, 3) for k, v in out["rise"].items()}, file=sys.stderr)
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--r2", default="bin/r2")
    p.add_argument("--out", required=True, help="the file to write")
    p.add_argument("--tasks", nargs="+", default=["scan", "decomposer"], choices=["scan", "sums", "decomposer"])
    p.add_argument("--model", help="SmolLM2, for sums")
    p.add_argument("--steps", type=int, default=0, help="of a run; 0: each task's own")
    p.add_argument("--seeds", type=int, default=3)
    a = p.parse_args()
    begin = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    results = [learn(a, name) for name in a.tasks]
    with open(a.out, "w") as f:
        json.dump({"date": begin, "tasks": results}, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
