#!/usr/bin/env python3
"""Does GRPO teach? The shipped decomposer's adapter is spoilt (its scale is tripled and turned round), and
GRPO, from three seeds, trains it with one thing to go by: whether the router reaches SCAN's answer by
the plan it wrote.

    python3 bench/learning.py --r2 bin/r2 --out bench/results/learning.json

Reward is the mean over the completions drawn in training, of the first and of the last steps of a run;
the interval of the rise is Student's, over the seeds, 95 %.
"""
import argparse, datetime, json, math, os, shutil, statistics, subprocess, sys, tempfile

p = argparse.ArgumentParser()
p.add_argument("--r2", default="bin/r2")
p.add_argument("--out", required=True)
p.add_argument("--steps", type=int, default=30)
p.add_argument("--window", type=int, default=3, help="steps that a mean is taken over")
p.add_argument("--scale", type=float, default=-3, help="what the adapter's scale is multiplied by")
a = p.parse_args()
mini = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cmd", "r2", "miniature")

with tempfile.TemporaryDirectory() as work:
    begin = os.path.join(work, "spoilt")
    shutil.copytree(os.path.join(mini, "decomposer"), begin)
    file = os.path.join(begin, "adapter_config.json")
    with open(file) as f:
        config = json.load(f)
    config["lora_alpha"] *= a.scale
    with open(file, "w") as f:
        json.dump(config, f)
    flags = ["--module", "decomposer", "--task", "scan", "--steps", str(a.steps), "--prompts", "16", "--samples", "8",
             "--max-tokens", "96", "--lr", "1e-3", "--kl", "0"]
    runs = []
    for seed in (1, 2, 3):
        out = f"{work}/seed{seed}"
        subprocess.run([a.r2, "grpo", *flags, "--config", mini + "/r2.yaml", "--init-adapter", begin, "--seed", str(seed),
                        "--out", out, "-q"], check=True, stdout=subprocess.DEVNULL)
        with open(out + "/metrics.jsonl") as f:
            m = [json.loads(line) for line in f]
        reward = [row["reward_mean"] for row in m]
        runs.append({"seed": seed, "first": statistics.mean(reward[: a.window]), "last": statistics.mean(reward[-a.window :]),
                     "parity": max(row["parity"] for row in m), "failed": sum(row["failed"] for row in m),
                     "seconds": round(sum(row["seconds"] for row in m), 2), "reward": [round(x, 4) for x in reward]})
        print(f"seed {seed}: {runs[-1]['first']:.3f} -> {runs[-1]['last']:.3f}, parity {runs[-1]['parity']}", file=sys.stderr)

rise = [r["last"] - r["first"] for r in runs]
half = 4.303 * statistics.stdev(rise) / math.sqrt(len(rise))  # Student's t, 2 degrees of freedom
result = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "grpo": flags, "scale": a.scale,
          "window": a.window, "runs": runs,
          "rise": {"mean": statistics.mean(rise), "low": statistics.mean(rise) - half, "high": statistics.mean(rise) + half}}
with open(a.out, "w") as f:
    json.dump(result, f, indent=1)
    f.write("\n")
print(f"rise {result['rise']['mean']:.3f} ({result['rise']['low']:.3f} to {result['rise']['high']:.3f})", file=sys.stderr)
