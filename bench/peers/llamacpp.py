#!/usr/bin/env python3
"""Measure r2 beside llama.cpp on one model, in one run, and write what came out to bench/results.

    make build
    python3 bench/peers/llamacpp.py --model ../shared/models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf

llama.cpp is built for this machine from the source that the PyPI package llama-cpp-python carries (it
needs pip, cmake and a C++ compiler, and ten minutes the first time). Its model is the same GGUF
dequantised to F32 and rounded to BF16 by llama-quantize; r2 reads the GGUF with --dtype. For int8 and int4
both read one file of Q8_0 or Q4_0. llama.cpp rounds activations to bf16 beside BF16 and to int8 beside quantised
matrices; r2 keeps them in float32 (bf16, int8, int4) or rounds them too (bf16:bf16, int8:int8, int4:int8).

Three things are measured, with as many threads on both sides:
  prefill  512 tokens in one batch, one row of logits
  decode   128 steps of one sequence after 16 tokens
  group    16 sequences that share a prompt of 128: the prompt, then 64 steps of all; drawn tokens
           a second, the prompt's time included
Each count of a run follows one that does not count, sides take turns, and medians are compared. llama.cpp
is measured with and without flash attention, and for the group with one cache for all and one for
each sequence: its best median stands for it. It draws no tokens in these runs; r2 samples each.
"""
import argparse
import datetime
import glob
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile

PACKAGE = "llama-cpp-python==0.3.36"
TYPES = {"f32": "F32", "bf16": "BF16", "int8": "Q8_0", "int4": "Q4_0"}  # llama.cpp's name of r2's --dtype
TOOLS = ["llama-batched-bench", "llama-quantize"]
TARGETS = {"prefill": {"f32": 1, "bf16": 2, "int8": 4, "int4": 2}, "decode": {"f32": 1, "bf16": 1.5, "int8": 1.5, "int4": 1.2},
           "group": {"f32": 1.5, "bf16": 3.5, "int8": 6, "int4": 3}}
LOADS = {"prefill": (512, 1, 1), "decode": (16, 128, 1), "group": (128, 64, 16)}  # prompt, tokens, samples


def run(*command, ahead=False):
    """The standard output of a command that must succeed."""
    if ahead:
        command = ("setsid", "-w", "sh", "-c", 'echo -20 > /proc/self/autogroup; exec "$@"', "sh") + command
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def build(work):
    """Build llama.cpp's tools below work, once, and return their folder."""
    bin = os.path.join(work, "build", "bin")
    if all(os.path.exists(os.path.join(bin, t)) for t in TOOLS):
        return bin
    os.makedirs(work, exist_ok=True)
    print("building llama.cpp", file=sys.stderr)
    run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", work, PACKAGE)
    with tarfile.open(glob.glob(os.path.join(work, "llama_cpp_python-*.tar.gz"))[0]) as t:
        t.extractall(work, filter="data")
    source = glob.glob(os.path.join(work, "llama_cpp_python-*", "vendor", "llama.cpp"))[0]
    options = ["GGML_NATIVE=ON", "GGML_LLAMAFILE=ON", "GGML_OPENMP=ON", "BUILD_SHARED_LIBS=OFF", "CMAKE_BUILD_TYPE=Release",
               "LLAMA_CURL=OFF", "LLAMA_OPENSSL=OFF", "LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF", "LLAMA_BUILD_SERVER=OFF"]
    run("cmake", "-S", source, "-B", os.path.join(work, "build"), *["-D" + o for o in options])
    run("cmake", "--build", os.path.join(work, "build"), "--parallel", str(os.cpu_count()), "--target", *TOOLS)
    return bin


def converted(bin, work, model, dtype):
    """The model as a GGUF of one type, made once."""
    name = os.path.basename(model).removesuffix(".gguf")
    path = os.path.join(work, f"{name}.{dtype}.gguf")
    if not os.path.exists(path):
        run(os.path.join(bin, "llama-quantize"), "--allow-requantize", "--pure", model, path + ".part", TYPES[dtype])
        os.rename(path + ".part", path)
    return path


def variants(bench):
    """How llama.cpp can be asked to do a benchmark."""
    for fa in "on", "off":
        if bench == "group":
            yield f"fa {fa}, a cache each", ["-fa", fa, "-pps"]
            yield f"fa {fa}, one cache", ["-fa", fa, "-pps", "-kvu"]
        else:
            yield f"fa {fa}", ["-fa", fa]


def theirs(bin, model, bench, flags, threads, ahead):
    """Tokens a second of llama.cpp: the second of two equal runs."""
    prompt, tokens, samples = LOADS[bench]
    out = run(os.path.join(bin, "llama-batched-bench"), "-m", model, "-c", "4096", "-b", "2048", "-ub", "512", "-t", str(threads),
              "-tb", str(threads), "-npp", f"{prompt},{prompt}", "-ntg", str(tokens), "-npl", str(samples),
              "--output-format", "jsonl", *flags, ahead=ahead)
    rows = [json.loads(line.replace("-nan", "0")) for line in out.splitlines() if line.startswith("{")]
    if len(rows) != 2:
        sys.exit(f"llama-batched-bench gave {len(rows)} rows, not 2:\n{out}")
    r = rows[1]
    if bench == "prefill":
        return prompt / r["t_pp"]
    if bench == "decode":
        return tokens / r["t_tg"]
    return tokens * samples / (r["t_pp"] + r["t_tg"])


def ours(r2, model, bench, dtype, activations, threads, ahead):
    """The row of r2 bench."""
    prompt, tokens, samples = LOADS[bench]
    return json.loads(run(r2, "bench", bench, "--model", model, "--dtype", dtype, "--activations", activations, "--threads", str(threads), "--repeat", "1",
                          "--prompt", str(prompt), "--tokens", str(tokens), "--samples", str(samples), "--json", "-q", ahead=ahead))


def measure(a, bin):
    """All numbers: peer[(bench, dtype)][variant] and mine[(bench, dtype)], a list of a.repeat each."""
    peer, mine, loads = {}, {}, []
    for _ in range(a.repeat):
        for dtype in a.dtype:
            weights, _, activations = dtype.partition(":")
            gguf = converted(bin, a.work, a.model, weights)
            for bench in a.bench:
                loads.append(os.getloadavg()[0])
                key = bench, dtype
                model = gguf if dtype.startswith("int") else a.model
                mine.setdefault(key, []).append(ours(a.r2, model, bench, weights, activations or "auto", a.threads, a.ahead))
                for name, flags in variants(bench):
                    v = theirs(bin, gguf, bench, flags, a.threads, a.ahead)
                    peer.setdefault(key, {}).setdefault(name, []).append(v)
                print(f"{bench} {dtype}: r2 {mine[key][-1]['reached']:.1f}, llama.cpp "
                      f"{max(v[-1] for v in peer[key].values()):.1f} tokens/s, load {loads[-1]:.1f}", file=sys.stderr)
    return peer, mine, loads


def compare(peer, mine):
    """A row for each benchmark and type."""
    rows = []
    for (bench, dtype), runs in mine.items():
        variant, theirs = max(peer[bench, dtype].items(), key=lambda kv: statistics.median(kv[1]))
        reached = [r["reached"] for r in runs]
        rows.append({
            "bench": bench, "dtype": dtype, "unit": "tokens/s",
            "llamacpp": statistics.median(theirs), "llamacpp_variant": variant, "llamacpp_all": peer[bench, dtype],
            "r2": statistics.median(reached), "r2_all": reached, "bound": statistics.median(r["bound"] for r in runs),
            "ratio": statistics.median(reached) / statistics.median(theirs), "target": TARGETS[bench][dtype.partition(":")[0]],
        })
    return rows


def machine():
    names = {}
    for line in open("/proc/cpuinfo"):
        k, _, v = line.partition(":")
        names.setdefault(k.strip(), v.strip())
    flags = [f for f in names.get("flags", "").split() if f.startswith(("avx512", "amx", "avx_vnni"))]
    return {"processor": f"{names.get('model name')} (family {names.get('cpu family')}, model {names.get('model')})",
            "cores": os.cpu_count(), "flags": " ".join(flags), "system": platform.system() + " " + platform.machine()}


def command(p, a):
    """The command that gives these numbers again, without the paths of this machine."""
    words = ["python3 bench/peers/llamacpp.py --model", os.path.basename(a.model)]
    for name in "threads", "repeat", "dtype", "bench":
        v = getattr(a, name)
        if v != p.get_default(name):
            words += ["--" + name] + (v if isinstance(v, list) else [str(v)])
    return " ".join(words + ["--ahead"] * a.ahead)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", required=True, help="a .gguf file")
    p.add_argument("--r2", default="bin/r2")
    p.add_argument("--work", default=".peers", help="where llama.cpp is built and models are kept")
    p.add_argument("--out", default="bench/results", help="folder for the JSON")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--dtype", nargs="+", default=["f32", "bf16", "bf16:bf16", "int8:int8", "int4:int8"], help="of weights, and after a colon r2's of activations")
    p.add_argument("--bench", nargs="+", default=list(LOADS), choices=list(LOADS))
    p.add_argument("--ahead", action="store_true", help="both sides go before other processes of a busy machine (Linux, as root)")
    a = p.parse_args()
    bin = build(a.work)
    git = lambda *c: run("git", "-C", os.path.dirname(os.path.abspath(__file__)), *c).strip()
    record = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "machine": machine(), "threads": a.threads,
        "commit": git("rev-parse", "--short", "HEAD"), "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
        "command": command(p, a),
        "llamacpp": PACKAGE, "go": run("go", "version").split()[2], "model": os.path.basename(a.model), "ahead": a.ahead,
    }
    peer, mine, loads = measure(a, bin)
    record["load_average"] = {"least": min(loads), "median": statistics.median(loads), "most": max(loads)}
    record["rows"] = compare(peer, mine)
    print("| bench | dtype | llama.cpp tokens/s | r2 tokens/s | ratio | target | of the bound |")
    print("|---|---|---|---|---|---|---|")
    for r in record["rows"]:
        print(f"| {r['bench']} | {r['dtype']} | {r['llamacpp']:.1f} ({r['llamacpp_variant']}) | {r['r2']:.1f} | {r['ratio']:.2f} | "
              f"{r['target']:.1f} | {100 * r['r2'] / r['bound']:.0f} % |")
    os.makedirs(a.out, exist_ok=True)
    path = os.path.join(a.out, record["date"][:16].replace(":", "") + "-llamacpp.json")
    with open(path + ".part", "w") as f:
        json.dump(record, f, indent=1)
        f.write("\n")
    os.rename(path + ".part", path)
    print(path, json.dumps({f"{r['bench']} {r['dtype']}": round(r["ratio"], 3) for r in record["rows"]}))


if __name__ == "__main__":
    main()
