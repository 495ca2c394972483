"""Compares log-probabilities that r2 gave with those of PyTorch: peer.py MODEL SCORES.jsonl RESULT.json

SCORES has r2 logprobs' lines. Weights are the model's bf16, sums are float32 on both sides."""
import json
import sys

import torch
import transformers

folder, scores, result = sys.argv[1:]
torch.backends.cuda.matmul.allow_tf32 = False
device = "cuda" if torch.cuda.is_available() else "cpu"
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").to(device).eval()
worst, rows = 0.0, []
for line in open(scores):
    row = json.loads(line)
    ids = torch.tensor([row["tokens"]], device=device)
    with torch.no_grad():
        logits = model(ids).logits[0, :-1].double()
    theirs = torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[:, 0].cpu()
    ours = torch.tensor(row["logprobs"][1:], dtype=torch.float64)
    off = (ours - theirs).abs().max().item()
    worst = max(worst, off)
    rows.append({"tokens": len(row["tokens"]), "largest": theirs.abs().max().item(), "off": off})
    print(f"{len(row['tokens'])} tokens: off by {off:.2e} at most, of up to {rows[-1]['largest']:.2f}")
json.dump({"torch": torch.__version__, "device": device, "worst": worst, "rows": rows}, open(result, "w"), indent=1)
if not worst < 2e-3:
    sys.exit(f"r2 and PyTorch differ by {worst:.2e}")
