#!/usr/bin/env bash
# Trains the models that r2 demo ships from random weights, on the training part of SCAN's length split,
# and puts them into cmd/r2/miniature. The same machine type and thread count or another: the same files.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=${WORK:-out/miniature}
ship=cmd/r2/miniature
rm -rf "$work"
go run ./bench/miniature data "$work"
full="--schedule cosine --warmup 100 --micro-tokens 8192 --batch 64 --save-every 1000000 --keep 1"

# The pool: each from random weights, on the commands it is meant to know.
for m in mini:1500 midi:1500 maxi:1500; do
  name=${m%:*} steps=${m#*:}
  bin/r2 sft --init random:1 --config "$work/$name/config.json" --tokenizer "$work/$name" \
    --data "$work/$name.jsonl" --steps "$steps" --lr 3e-3 $full --out "$work/run-$name"
  bin/r2 generate -q --model "$work/run-$name/model" --input "$work/subtasks.jsonl" \
    --temperature 0 --max-tokens 24 --json > "$work/$name.out.jsonl"
done
# Labels for the allocator: the cheapest model that solves each subtask, found by asking.
go run ./bench/miniature label "$work"

# The router's base: all its weights, on plans and names together (base.jsonl says how).
bin/r2 sft --init random:1 --config "$work/router/config.json" --tokenizer "$work/router" \
  --data "$work/base.jsonl" --steps 1000 --lr 2e-3 $full --out "$work/run-router"
# Its two policies: LoRA adapters.
lora="--lora r=8,alpha=16 --schedule cosine --micro-tokens 8192 --save-every 1000000 --keep 1"
bin/r2 sft --model "$work/run-router/model" --data "$work/plans.jsonl" --steps 60 --batch 64 --lr 1e-3 --warmup 10 $lora --out "$work/run-decomposer"
bin/r2 sft --model "$work/run-router/model" --data "$work/names.jsonl" --steps 20 --batch 34 --lr 1e-3 --warmup 3 $lora --out "$work/run-allocator"

for name in mini midi maxi router; do
  rm -rf "${ship:?}/$name"
  cp -r "$work/run-$name/model" "$ship/$name"
done
for name in decomposer allocator; do
  rm -rf "${ship:?}/$name"
  cp -r "$work/run-$name/adapter" "$ship/$name"
done
du -sh "$ship"
