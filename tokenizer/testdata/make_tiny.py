"""Writes tiny.json, a small byte-level BPE trained on the text below, and
tiny_golden.json: what the Hugging Face tokenizers library makes of hard strings
with it, under the normalizers, pre-tokenizers, post-processors and added tokens
of known models ("over" replaces parts of tiny.json).

    python make_tiny.py             # needs tokenizers 0.23
"""

import json

import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CORPUS = [
    "The router splits a question into smaller questions, and each of them goes to the smallest model that can answer it.",
    "the the them then there these they're we've I'll he'd it's don't I'm 'tis O'Neil's",
    "  two spaces    four spaces\n\nnew lines\n\n\n\ttabs\t\tand  mixed \n white \r\n space",
    "1 12 123 1234 12345 3.14159 1,000,000 2026-01-31 x1y22z333",
    "def f(x):\n    return x + 1  # code\n\nfor (int i = 0; i < n; ++i) { a[i] = b[i]; }\n",
    "naïve café Ünïcödé straße ſ Ångström 日本語のテスト привет мир שלום नमस्ते 한국어 🦙🚀👩‍🔬",
    "walk twice and jump left thrice after run opposite right; look around left and turn right",
] * 3

QWEN = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
LLAMA = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|")
GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


def added(id, content, **flags):
    t = {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {**t, **flags}


TEXTS = [
    "", " ", "  ", "   ", "\n", "\n\n\n", "\t", " \n", "\n ", "  \n  \n  x", "\r\n\r\n", " \r\n x", "a  b", "a   b", "  a", "a  ", "a \n b", "x\n\n  y",
    "Hello world", " Hello world", "The router splits", "the them THE", "it's IT'S It'S 'S 's 'ſ 'LL 'll 'Re x'VE don'T", "''s '''t 'sx 'tis",
    "1", "12", "123", "1234", "12345678", "a1b22c333", " 1 12", "x 1", "½ ² Ⅷ ٣٤ ൫", "3.14, 1,000", "!!!", " !!!", "...\n\n", " ?!\n", "a!\nb", "#!/bin/sh\n\n# x",
    "naïve", "nai\u0308ve", "A\u030angström", "q\u0307\u0323", "q\u0323\u0307", "e\u0301\u0301", "\u1100\u1161\u11a8", "\u212b\u2126", "\ufb01x", "\u0344", "\u0958", "\u2adc",
    "a" + "\u0301\u0323" * 20, "x" + "\u0300" * 40 + "y", "\u0301\u0301", "각각 한국어", "日本語のテスト", "привет мир", "שלום", "नमस्ते", "🦙🚀", "👩‍🔬👨‍👩‍👧‍👦", "🏳️‍🌈 ☺️",
    "\u00a0x", "x\u00a0\u00a0y", "\u2003em", "\u200bzero", "\ufeffbom", "a\u0085b", "a\u2028b", "\u3000全角", "\x00\x01\x1f", "\x7f\u0080", "x\u180ey", "\u1680o",
    "<s>", "<s>the</s>", "a <s> b", "a<s>b", "  <s>  ", "<s><s></s>", "<|tool|>", "<|tool_call|>", "<|tool_cal", "x<|tool|><|tool_call|>y",
    "ééé", "ee\u0301e\u0301", "two words", "walk", "walks", "a walk b", "(walk)", "walk_", "walkwalk", " walk", "éwalk", "walk\u0301", "  <l>  <r>  ", "a<l>b<r>c", "<r>  <l>", "<r> <r> x", "\n<b>\n", "x <b> <b> y",
    "nfc\u0301tok", "nfćtok", "nfctok", "Ġ", "Ċ", "Ġthe", "the the the the", "twice and thrice", "jump left after turn opposite right", "f(x):\n    return x + 1",
    "\u0345\u0301", "\u1e9b\u0323", "\U0001d15e", "\U0001d7d8\U0001d7d9", "\U00020000\U0002a6d6", "\U000e0041", "\U0010ffff", "a\u20ddb", "ⓐⓑ①②", "٠١٢ ߀߁", "ªº", "ʰˠ", "ˆ˜", "_x_", "__init__", "a-b", "a - b",
    "word " * 30, " " * 50 + "x", "x" + " " * 50, "\n" * 30, "a" * 100, "ab" * 80, "'" * 9, "\t \t \n\t x",
]


def main():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=440, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>", "</s>"])
    tok.train_from_iterator(CORPUS, trainer)
    base = json.loads(tok.to_str())
    n = tok.get_vocab_size()
    bos = base["added_tokens"]
    cases = {
        "as it is": {},
        "prefix space": {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        "qwen2": {"normalizer": {"type": "NFC"}, "pre_tokenizer": sequence(split(QWEN), BYTE_LEVEL)},
        "qwen2, removed and inverted": {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]}, "pre_tokenizer": sequence(split(QWEN, "Removed", True), BYTE_LEVEL)},
        "llama3": {
            "pre_tokenizer": sequence(split(LLAMA), BYTE_LEVEL),
            "model": {"ignore_merges": True},
            "post_processor": {"type": "Sequence", "processors": [
                {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
                {"type": "TemplateProcessing",
                 "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                 "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                 "special_tokens": {t["content"]: {"id": t["content"], "ids": [t["id"]], "tokens": [t["content"]]} for t in bos}},
            ]},
        },
        "smollm": {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": True}, {**BYTE_LEVEL, "use_regex": True})},
        "digits together, prefix space": {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": False}, {**BYTE_LEVEL, "use_regex": True, "add_prefix_space": True})},
        "gpt2 as a split": {"pre_tokenizer": sequence(split(GPT2), BYTE_LEVEL)},
        "numbers in threes": {"pre_tokenizer": sequence(split(r"\p{N}{1,3}"), {**BYTE_LEVEL, "use_regex": True})},
        "roberta": {"post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0], "trim_offsets": True, "add_prefix_space": False}},
        "added tokens": {
            "normalizer": {"type": "NFC"},
            "added_tokens": bos + [
                added(n, "<|tool|>"), added(n + 1, "<|tool_call|>", special=False), added(n + 2, "walk", single_word=True, special=False),
                added(n + 3, "<l>", lstrip=True), added(n + 4, "<r>", rstrip=True), added(n + 5, "<b>", lstrip=True, rstrip=True, special=False),
                added(n + 6, "nfc\u0301tok", normalized=True, special=False), added(n + 7, "éé", normalized=True, special=False), added(n + 8, "two words", special=False),
            ],
        },
        "added tokens, prefix space": {
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "added_tokens": bos + [added(n, "<l>", lstrip=True), added(n + 1, "walk", normalized=True, special=False), added(n + 2, "  ", special=False)],
        },
        "no byte for x, unknown token": {"model": {"unk_token": "</s>"}, "remove": ["x", "y"]},
        "no byte for x, unknown tokens fused": {"model": {"unk_token": "</s>", "fuse_unk": True}, "remove": ["x", "y"]},
        "no byte for x": {"remove": ["x", "y"]},
    }
    out = []
    for name, over in cases.items():
        t = Tokenizer.from_str(json.dumps(merged(base, over)))
        rows = []
        for text in TEXTS:
            ids = t.encode(text, add_special_tokens=False).ids
            special = t.encode(text).ids
            rows.append([ids, special, t.decode(special, skip_special_tokens=False), t.decode(special)])
        out.append({"name": name, "over": over, "rows": rows})
    with open("tiny.json", "w", encoding="utf-8") as f:
        json.dump(base, f, ensure_ascii=False)
        f.write("\n")
    with open("tiny_golden.json", "w", encoding="utf-8") as f:
        lines = [json.dumps(c, ensure_ascii=True) for c in out]
        f.write('{"tokenizers": "%s",\n"texts": %s,\n"cases": [\n' % (tokenizers.__version__, json.dumps(TEXTS)) + ",\n".join(lines) + "\n]}\n")
    print(len(TEXTS), "texts,", len(out), "tokenizers,", n, "tokens")


def merged(base, over):
    """base with parts replaced, and with the tokens and merges of "remove" gone."""
    t = json.loads(json.dumps(base))
    for key, value in over.items():
        if key == "model":
            t["model"].update(value)
        elif key != "remove":
            t[key] = value
    gone = over.get("remove", [])
    vocab = t["model"]["vocab"]
    t["model"]["vocab"] = {k: v for k, v in vocab.items() if not any(g in k for g in gone)}
    t["model"]["merges"] = [m for m in t["model"]["merges"] if all(not any(g in part for g in gone) for part in m)]
    return t


main()
