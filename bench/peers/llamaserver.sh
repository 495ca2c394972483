#!/usr/bin/env bash
# The service beside llama.cpp's server, by the same client in one run:
#
#   make build
#   bash bench/peers/llamaserver.sh MODEL.gguf LLAMA_SERVER [ROUNDS] [DTYPE]
#
# MODEL.gguf holds matrices of DTYPE (bf16, int8 or int4: llama-quantize --pure MODEL OUT BF16, Q8_0, Q4_0) and is read by both; llama.cpp
# rounds activations to bf16 beside BF16 and to int8 beside the others, r2 is measured so and with float32 ones. LLAMA_SERVER is llama.cpp's
# llama-server, built for this machine as bench/peers/llamacpp.py builds its tools. 16 clients, 16 slots, two threads
# each; the sides take turns, each with the machine to itself.
set -euo pipefail
model=$1 server=$2 rounds=${3:-2} dtype=${4:-bf16}
rounded=int8; [ "$dtype" = bf16 ] && rounded=bf16
r2=${R2:-bin/r2}
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
load() { "$r2" bench serve -q --url "http://127.0.0.1:$1/v1" --name "$2" --clients 16 --requests 64 --prompt 64 --tokens 64 --seed "$3" --json; }
ready() { for _ in $(seq 120); do sleep 0.5; curl -sf "http://127.0.0.1:$1/$2" >/dev/null && return; done; echo "no server on port $1" >&2; exit 1; }
show='import json,sys
r = json.load(sys.stdin)
ms = lambda s: " / ".join(f"{1e3 * s[p]:.0f}" for p in ("p50", "p95"))
print("|", " | ".join([sys.argv[1], "%.1f" % r["tokens_per_second"], ms(r["ttft_seconds"]), ms(r["itl_seconds"]), str(r["failed"])]), "|", flush=True)'
echo "| server | tokens/s | first token, ms, p50 / p95 | token to token | failed |"
echo "|---|---|---|---|---|"
for round in $(seq "$rounds"); do
  "$server" -m "$model" -np 16 -c 16384 -t 2 -fa on --host 127.0.0.1 --port 8772 >"$work/theirs" 2>&1 & at=$!
  ready 8772 health
  load 8772 any "$round" | python3 -c "$show" llama.cpp
  kill $at; wait $at 2>/dev/null || true
  for acts in f32 $rounded; do
    R2_THREADS=2 "$r2" serve -q --model "$model" --dtype $dtype --activations $acts --listen 127.0.0.1:8773 >"$work/ours" 2>&1 & at=$!
    ready 8773 ready
    name=$(curl -s http://127.0.0.1:8773/v1/models | python3 -c 'import json,sys; print(json.load(sys.stdin)["data"][0]["id"])')
    load 8773 "$name" "$round" | python3 -c "$show" "r2, activations $acts"
    kill $at; wait $at
  done
done
