"""Runs client.json with the openai package: python client.py URL. Says what differs, and exits with 1 where something does."""
import json
import os
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
wrong = 0


def check(name, what, got, want):
    global wrong
    if got != want:
        wrong += 1
        print(f"{name}: {what} {got!r}, want {want!r}")


def whole(create, body, extra):
    r = create(**body, extra_body=extra)
    c = r.choices[0]
    chat = hasattr(c, "message")
    return {"text": c.message.content if chat else c.text, "finish": c.finish_reason, "prompt": r.usage.prompt_tokens,
            "completion": r.usage.completion_tokens, "cost": getattr(r.usage, "cost", 0) > 0,
            "logprobs": len(c.logprobs.content) if chat and c.logprobs else 0}


def streamed(create, body, extra):
    got = {"text": "", "logprobs": 0}
    for r in create(**body, extra_body=extra, stream=True, stream_options={"include_usage": True}):
        if r.usage:
            got.update(prompt=r.usage.prompt_tokens, completion=r.usage.completion_tokens, cost=getattr(r.usage, "cost", 0) > 0)
        for c in r.choices:
            if c.index != 0:
                continue
            chat = hasattr(c, "delta")
            got["text"] += (c.delta.content if chat else c.text) or ""
            if chat and c.logprobs and c.logprobs.content:
                got["logprobs"] += len(c.logprobs.content)
            if c.finish_reason:
                got["finish"] = c.finish_reason
    return got


def step(s):
    want, name = s["want"], s["name"]
    if s["call"] == "models":
        check(name, "ids", [m.id for m in client.models.list()], want["ids"])
        return
    create = (client.chat.completions if s["call"] == "chat" else client.completions).create
    for run in whole, streamed:
        where = f"{name} ({run.__name__})"
        try:
            got = run(create, s["body"], s.get("extra", {}))
        except openai.APIStatusError as e:
            check(where, "status", e.status_code, want.get("status"))
            check(where, "param", e.param, want.get("param"))
            continue
        check(where, "status", 200, want.get("status", 200))
        for key, value in want.items():
            if key == "begins":
                check(where, key, got["text"][:len(value)], value)
            elif key not in ("status", "param"):
                check(where, key, got.get(key), value)


steps = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "client.json")))
for s in steps:
    step(s)
print(f"openai {openai.__version__}: {len(steps)} steps, {wrong} differences")
sys.exit(wrong > 0)
