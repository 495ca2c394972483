"""Writes renders.json: what Jinja2, set up as transformers sets it up, makes of
each template of snippets.txt (separated by lines of %%) with the variables below.

    python make_renders.py          # needs jinja2 3.1
"""

import json

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

VARIABLES = {
    "s": "  Hello World \n", "t": "a,b,,c", "n": 3, "f": 2.5, "z": 0, "none": None, "yes": True, "no": False,
    "l": [3, 1, 2], "ls": ["x", "y", "z"], "e": [], "d": {"b": 1, "a": {"z": None, "y": [1.0, "q\"'"]}}, "ed": {},
    "msgs": [
        {"role": "system", "content": "S"},
        {"role": "user", "content": " U "},
        {"role": "assistant", "content": None,
         "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1, "a": "é<>&"}}}]},
        {"role": "tool", "content": "r"},
        {"role": "user", "content": [{"type": "text", "text": "T1"}, {"type": "image"}]},
    ],
    "one": [{"role": "user", "content": "only"}],
    "u": "naïve ſ 🦙", "big": 123456789012345678901234567890,
    "fl": [1.0, 1e16, 1e-5, 0.1, -0.0, 123456.789, 2.5e-7, 1e22, 5e-324, 1.7976931348623157e308],
}


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


def main():
    cases = []
    with open("snippets.txt", encoding="utf-8", newline="") as f:
        snippets = f.read().removesuffix("\n").split("\n%%\n")
    for template in snippets:
        case = {"template": template}
        try:
            case["rendered"] = environment().from_string(template).render(**VARIABLES)
        except Exception as e:  # whatever it refuses, we have to refuse
            case["error"] = f"{type(e).__name__}: {e}"
        cases.append(case)
    with open("renders.json", "w", encoding="utf-8") as f:
        json.dump({"jinja2": jinja2.__version__, "variables": VARIABLES, "cases": cases}, f, ensure_ascii=False, indent=1)
        f.write("\n")
    print(len(cases), "cases,", sum("error" in c for c in cases), "refused")


main()
