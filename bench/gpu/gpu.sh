#!/usr/bin/env bash
# Proves and measures r2 on a machine with an NVIDIA GPU and no Go. `make gpu` writes this file and what it runs
# into out/gpu; run it from the root of the repository, a part at a time, each in at most ten minutes:
#
#   bash out/gpu/gpu.sh check       correctness: the driver, every kernel, the engine, the model beside PyTorch
#   bash out/gpu/gpu.sh sanitize    the kernels under compute-sanitizer, where it is installed
#   bash out/gpu/gpu.sh time        rates, products beside cuBLAS, a 7B model: decode, prefill, groups, a GRPO step
#
# Without an argument it does all three. A step that fails is told, and the next one runs. Results go to $OUT
# (out/gpu/results): rows.jsonl, results.json, wrappers.json.gz, torch.json and a log of each part. R2_DEVICE=ptxsim
# runs everything on the simulator of a GPU, with tiny shapes: it shows that the script works, and no speed.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
export R2_DEVICE=${R2_DEVICE:-cuda:0} R2_NEED_GPU=1
out=${OUT:-$here/results}
work=${R2_GPU_WORK:-${TMPDIR:-/tmp}/r2-gpu}
mkdir -p "$out" "$work"
tar -xzf "$here/bin.tar.gz" -C "$work" || exit 1
rows=$out/rows.jsonl
simulated() { [ "$R2_DEVICE" = ptxsim ]; }
gpu() { "$work/gpu" -device "$R2_DEVICE" -rows "$rows" -shape "$shape" "$@"; }

if simulated; then
  shape=tiny sizes=64 prompt=24 tokens=6 batches="1 4" prefill=40 slow=3
  grpo="--prompts 2 --samples 2 --max-tokens 4 --lora r=4,alpha=8"
else
  shape=qwen2.5-7b sizes=4096,8192 prompt=512 tokens=128 batches="1 8 64 256" prefill=2048 slow=1
  grpo="--prompts 64 --samples 5 --max-tokens 1024 --lora r=32,alpha=64 --micro-tokens 8192"
fi
model=$work/model-$shape

failed=()
part_start=0 part_limit=580 # seconds of a part, so that it ends within ten minutes
# step NAME SECONDS COMMAND...: runs a command for at most so long, and no longer than the part has left, and goes
# on whatever comes of it.
step() {
  local name=$1 limit=$(($2 * slow)) left=$((part_limit * slow - SECONDS + part_start)) start=$SECONDS; shift 2
  printf '\n== %s (%s)\n' "$name" "$(date +%T)"
  if [ $left -lt 5 ]; then echo "-- $name: no time is left for it"; failed+=("$name"); return; fi
  [ $limit -le $left ] || limit=$left
  timeout --kill-after=5 "$limit" "$@"
  local code=$?
  if [ $code = 124 ] || [ $code = 137 ]; then echo "-- $name: stopped after $limit s"; elif [ $code != 0 ]; then echo "-- $name: FAILED ($code)"; fi
  [ $code = 0 ] || failed+=("$name")
  echo "-- $name: $((SECONDS - start)) s"
}
# missing NAME WHY: a step that this machine cannot do.
missing() { printf '\n== %s: left out: %s\n' "$1" "$2"; }
# tests BINARY FOLDER PATTERN: a package's tests, in its folder, without those that are left out here.
tests() { (cd "$root/$2" && "$work/$1" -test.run "$3" -test.v -test.timeout 9m 2>&1 | grep -v '^=== \|^    --- PASS\|^        --- PASS'); }
export -f gpu tests; export work root rows shape out model
run() { step "$1" "$2" bash -o pipefail -c "$3"; }

machine() {
  [ -d "$root/.git" ] && git -C "$root" log -1 --format='commit %h of %cs' 2>/dev/null
  if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,power.limit --format=csv
    nvidia-smi --query-compute-apps=pid,used_memory --format=csv
  fi
  gpu device
}
export -f machine

write_model() { [ -e "$model/config.json" ] || gpu model "$model"; }
export -f write_model

# The model's log-probabilities of some ids, for PyTorch to compare.
score() {
  python3 - "$1" > "$work/ids.jsonl" <<'PY'
import json, random, sys
random.seed(1)
for n in (7, 40):
    print(json.dumps({"tokens": [random.randrange(int(sys.argv[1])) for _ in range(n)]}))
PY
  "$work/r2" logprobs --model "$model" --input "$work/ids.jsonl" --json > "$work/scores.jsonl" && cat "$work/scores.jsonl" | cut -c1-160
}
export -f score

check() {
  run "the machine" 60 machine
  run "the driver" 60 "tests driver.test kernels/cuda/driver '^Test(GPU|NoDriver)$'"
  run "wgmma's columns" 60 "gpu width"
  run "the wrappers of gpu.h" 60 "gpu wrappers $out/wrappers.json.gz"
  if simulated; then
    run "kernels" 120 "tests cuda.test kernels/cuda '^TestGraphReplays$'"
  else
    run "kernels" 240 "tests cuda.test kernels/cuda '^Test(Conformance|Versions)OnGPU$'"
  fi
  run "the engine, sampler and trainer to the bit" 120 "tests cuda.test kernels/cuda '^Test(EngineOnGPU|DecodeOnGPU)$'"
  run "a random model" 180 write_model
  run "log-probabilities" 120 "score $([ $shape = tiny ] && echo 512 || echo 152064)"
  if python3 -c 'import torch, transformers' 2>/dev/null; then
    run "the same by PyTorch" 120 "python3 $here/peer.py $model $work/scores.jsonl $out/torch.json"
  else
    missing "the same by PyTorch" "python3 has no torch and transformers"
  fi
}

sanitize() {
  local tool; tool=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null | head -1)
  if simulated || [ -z "$tool" ]; then missing "compute-sanitizer" "$(simulated && echo 'the simulator checks what it does' || echo 'it is not installed')"; return; fi
  for check in memcheck synccheck initcheck racecheck; do
    run "$check" 135 "cd $root/kernels/cuda && $tool --tool $check --error-exitcode 9 --print-limit 20 $work/cuda.test -test.run '^TestConformanceOnGPU$' -test.short"
  done
}

time_part() {
  run "the machine" 60 machine
  local blas; blas=$(python3 -c 'import glob, site
print((sorted(p for s in site.getsitepackages() for p in glob.glob(s + "/nvidia/**/libcublas.so.*", recursive=True)) + ["libcublas.so.12"])[0])' 2>/dev/null || echo libcublas.so.12)
  run "products" 90 "gpu -sizes $sizes -cublas $blas products"
  run "what a step costs the host" 60 "gpu overhead"
  run "a random model" 120 write_model
  run "what bench/predicted.md predicts, activations exact" 120 "gpu -activations f32 works $model"
  run "the same, activations rounded" 90 "gpu -activations bf16 works $model"
  bench() { run "$1" "$2" "$work/r2 bench ${*:3} --model $model --repeat 3 --json | tee -a $rows"; }
  bench "decode, one sequence" 60 decode --prompt $prompt --tokens $tokens
  bench "prefill" 60 prefill --prompt $prefill
  for n in $batches; do bench "a group of $n" 60 group --prompt $prompt --tokens $tokens --samples "$n"; done
  run "generate" 60 "$work/r2 generate --model $model --prompt 'The sky is' --max-tokens 8"
  : > "$work/prompts.jsonl"
  for i in $(seq 64); do printf '{"prompt":"%0*d"}\n' $prompt "$i" >> "$work/prompts.jsonl"; done
  rm -rf "$work/run"
  run "a GRPO step through r2" 150 "$work/r2 grpo --model $model --data $work/prompts.jsonl --reward-cmd '$work/gpu reward' --steps 1 $grpo --out $work/run && cat $work/run/metrics.jsonl"
  if simulated; then bench "a GRPO step and its parts" 60 grpo --prompt 16 --tokens 4 --samples 2 --prompts 2 --repeat 1
  else bench "a GRPO step and its parts" 120 grpo --prompt 512 --tokens 256 --samples 5 --prompts 16 --repeat 1; fi
  command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=clocks.sm,clocks.mem,temperature.gpu,power.draw --format=csv
}

parts=${*:-check sanitize time}
for part in $parts; do
  case $part in check) f=check ;; sanitize) f=sanitize ;; time) f=time_part ;; *) echo "gpu.sh: there is no part $part: check, sanitize or time" >&2; exit 2 ;; esac
  start=$SECONDS part_start=$SECONDS
  $f > >(tee "$out/$part.log") 2>&1
  wait $! 2>/dev/null
  echo "== $part: $((SECONDS - start)) s"
done
sleep 1
[ -e "$rows" ] && "$work/gpu" table "$rows" "$out/results.json"
if [ ${#failed[@]} -gt 0 ]; then printf 'FAILED: %s\n' "${failed[@]}"; exit 1; fi
echo "all steps passed on $R2_DEVICE"
