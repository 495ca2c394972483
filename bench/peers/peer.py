"""What the scripts beside this share: the Python environment they measure in, the model as a folder that
transformers loads, and what has to be known about a machine to read its numbers."""
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys

# Versions that ../shared/goldens was made with. torch comes with CUDA libraries that are not used.
PACKAGES = ["trl==1.16.0", "peft==0.21.2", "transformers==5.23.0", "torch==2.15.0", "safetensors==0.8.0",
            "tokenizers==0.23.3", "numpy==2.4.6", "accelerate==1.15.0", "datasets==5.2.0", "gguf==0.19.0"]
HERE = os.path.dirname(os.path.abspath(__file__))


def run(*command, **more):
    """The standard output of a command that must succeed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def enter(work, packages=PACKAGES, name="python"):
    """Go on in a Python that has the packages: it is made below work the first time (6 GB and some minutes, for those of PACKAGES)."""
    folder = os.path.abspath(os.path.join(work, name))
    python, done = os.path.join(folder, "bin", "python"), os.path.join(folder, "packages.txt")
    if os.path.abspath(sys.prefix) == folder:
        return
    want = "\n".join(packages) + "\n"
    if not os.path.exists(done) or open(done).read() != want:
        print(f"installing {' '.join(packages)} below {work}", file=sys.stderr)
        run(sys.executable, "-m", "venv", folder)
        run(python, "-m", "pip", "install", "-q", *packages)
        with open(done, "w") as f:
            f.write(want)
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error", TQDM_DISABLE="1", PYTHONWARNINGS="ignore")
    os.execv(python, [python, *sys.argv])


def folder(model, work):
    """A model in the layout of Hugging Face: the folder given, or for that of a GGUF its f32 safetensors, made once by the script beside it."""
    if os.path.exists(os.path.join(model, "model.safetensors")):
        return model
    out = os.path.join(work, "smollm2-f32")
    if not os.path.exists(os.path.join(out, "model.safetensors")):
        os.makedirs(out, exist_ok=True)
        run(sys.executable, os.path.join(model, "to_safetensors.py"), "--out", out, "f32")
        for name in "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json":
            with open(os.path.join(model, name)) as a, open(os.path.join(out, name), "w") as b:
                b.write(a.read())
        os.rename(os.path.join(out, "model.f32.safetensors"), os.path.join(out, "model.safetensors"))
    return out


def machine():
    names = {}
    for line in open("/proc/cpuinfo"):
        k, _, v = line.partition(":")
        names.setdefault(k.strip(), v.strip())
    flags = [f for f in names.get("flags", "").split() if f.startswith(("avx512", "amx", "avx_vnni"))]
    return {"processor": f"{names.get('model name')} (family {names.get('cpu family')}, model {names.get('model')})",
            "cores": os.cpu_count(), "flags": " ".join(flags), "system": platform.system() + " " + platform.machine()}


def record(p, a):
    """What a result has to say about where it comes from; command is without the paths of this machine."""
    git = lambda *c: run("git", "-C", HERE, *c).strip()
    words = ["python3", "bench/peers/" + os.path.basename(sys.argv[0])]
    for name, value in vars(a).items():
        if value == p.get_default(name):
            continue
        words += ["--" + name.replace("_", "-")]
        if value is not True:
            words += [os.path.basename(str(v).rstrip("/")) for v in (value if isinstance(value, list) else [value])]
    return {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "machine": machine(),
            "commit": git("rev-parse", "--short", "HEAD"), "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
            "command": shlex.join(words), "packages": PACKAGES[:-1], "go": run("go", "version").split()[2]}


def save(record, out, name):
    """Write a result to the folder out, whole or not at all, and say where."""
    os.makedirs(out, exist_ok=True)
    path = os.path.join(out, record["date"][:16].replace(":", "") + "-" + name + ".json")
    with open(path + ".part", "w") as f:
        json.dump(record, f, indent=1)
        f.write("\n")
    os.rename(path + ".part", path)
    print(path)
