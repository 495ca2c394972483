#!/usr/bin/env python3
"""Does TensorBoard read the event files of a run?

    make build && make peers

r2 sft and r2 grpo train the smallest model in the repository for some steps, are killed on the way and go on. What
TensorBoard's own reader, and its server over HTTP, find in the run's directory is compared with metrics.jsonl: every
number of every step, to the bit of the float32 that the format holds, and nothing else. Exits with 1 if anything differs.
"""
import argparse
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import peer

PACKAGES = ["tensorboard==2.21.0", "setuptools==75.8.0"]  # no TensorFlow: it reads with its own stub
MODEL = os.path.join(peer.HERE, "..", "..", "cmd", "r2", "miniature", "mini")
DEADLINE = 300  # seconds, of whatever is waited for
NOT_SCALARS = re.compile(r"step$|seconds")


def until(what, ready):
    """What ready gives, once it is something."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        found = ready()
        if found:
            return found
        time.sleep(0.05)
    sys.exit(f"{what}: nothing in {DEADLINE} s")


def rows(run):
    try:
        with open(os.path.join(run, "metrics.jsonl")) as f:
            return [json.loads(line) for line in f if line.endswith("\n")]
    except FileNotFoundError:
        return []


def train(r2, run, *args, steps):
    """A run that is killed after some rows, and then goes on to its end."""
    command = [r2, *args, "--model", MODEL, "--steps", str(steps), "--save-every", "3", "--out", run, "-q"]
    p = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until(" ".join(args[:1]), lambda: len(rows(run)) > 4 or p.poll() is not None)
    killed = p.poll() is None
    p.send_signal(signal.SIGKILL)
    p.wait()
    peer.run(*command)
    assert len(rows(run)) == steps
    return killed


def single(x):
    """x as the float32 nearest to it."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


def wanted(run):
    """(tag, step) to value: what is in metrics.jsonl, and the speed that follows from it."""
    all = [row | {"tokens_per_second": row["tokens"] / row["seconds"]} for row in rows(run)]
    return {(tag, row["step"]): single(v) for row in all for tag, v in row.items() if not NOT_SCALARS.match(tag)}


def by_reader(run):
    from tensorboard.backend.event_processing import event_accumulator
    acc = event_accumulator.EventAccumulator(run, size_guidance={event_accumulator.SCALARS: 0})
    acc.Reload()
    events = [(tag, e) for tag in acc.Tags()["scalars"] for e in acc.Scalars(tag)]
    assert len({(tag, e.step) for tag, e in events}) == len(events), "a step stands there twice"
    return {(tag, e.step): single(e.value) for tag, e in events}


def by_server(logdir, names):
    """The same for each run below logdir."""
    p = subprocess.Popen([sys.executable, "-m", "tensorboard.main", "--logdir", logdir, "--port", "0", "--samples_per_plugin", "scalars=100000"],
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        address = until("tensorboard", lambda: re.search(r"http://\S+", p.stderr.readline() or sys.exit("tensorboard ended"))).group().rstrip("/")
        get = lambda path: json.load(urllib.request.urlopen(f"{address}/data/plugin/scalars/{path}", timeout=DEADLINE))
        tags = until("tensorboard's runs", lambda: (lambda t: set(t) == set(names) and t)(get("tags")))
        found = {}
        for run in names:
            found[run] = {}
            for tag in tags[run]:
                for _, step, value in get("scalars?" + urllib.parse.urlencode({"run": run, "tag": tag})):
                    found[run][tag, step] = single(value)
        return found
    finally:
        p.terminate()
        p.wait()


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--r2", default="bin/r2")
    p.add_argument("--work", default=".peers", help="where packages are kept")
    p.add_argument("--out", default="bench/results", help="folder for the JSON")
    p.add_argument("--steps", type=int, default=40)
    a = p.parse_args()
    peer.enter(a.work, PACKAGES, "tensorboard")
    result, holds = {}, True
    with tempfile.TemporaryDirectory() as work:
        data = os.path.join(work, "rows.jsonl")
        with open(data, "w") as f:
            f.writelines(json.dumps({"prompt": f"walk {n}", "completion": " I_WALK"}) + "\n" for n in ("twice", "left", "right"))
        runs = {"sft": ["sft", "--data", data, "--batch", "2"],
                "grpo": ["grpo", "--task", "scan", "--prompts", "2", "--samples", "4", "--max-tokens", "12"]}
        logdir = os.path.join(work, "runs")
        killed = {name: train(a.r2, os.path.join(logdir, name), *args, steps=a.steps) for name, args in runs.items()}
        served = by_server(logdir, list(runs))
        for name in runs:
            want, read = wanted(os.path.join(logdir, name)), by_reader(os.path.join(logdir, name))
            same = want == read == served[name] and len(want) >= 3 * a.steps
            print(f"{name}: {len(want)} numbers of metrics.jsonl, killed on the way: {killed[name]}; TensorBoard reads {len(read)} and serves {len(served[name])}, {'equal' if same else 'NOT equal'}")
            result[name] = {"numbers": len(want), "killed": killed[name], "read": len(read), "served": len(served[name]), "equal": same}
            holds = holds and same
    peer.save(peer.record(p, a) | {"packages": PACKAGES, "runs": result, "holds": holds}, a.out, "tensorboard")
    if not holds:
        sys.exit(1)


if __name__ == "__main__":
    main()
