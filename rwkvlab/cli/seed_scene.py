"""The demo's last scene: one question to two architectures, each without a state and with the emoji state."""

from __future__ import annotations

import re
from typing import Any

import rwkvlab as lab
from rwkvlab.errors import show
from rwkvlab.shapes import ARCH_NAMES
from rwkvlab.states.columns import straight

QUESTION = "东京到巴黎怎么走?"  # How does one get from Tokyo to Paris?
WORLDS = ("rwkv7", "rwkv6")
WIDTHS = (8, 40, 60)  # of a line, at most; emoji come last, since terminals do not agree on how wide they are
_GREEDY: dict[str, Any] = {"max_tokens": 60, "temperature": 0.0, "presence": 0.0, "frequency": 0.0}
_CODE = re.compile("(?<![A-Za-z])[A-Z]{3}(?![A-Za-z])")


def seed_scene() -> str:
    """Ask both bundled world models; returns what the demo prints. A line says which model is not there, and why."""
    rows, sizes, codes, missing = [["", "no state", "the state `emoji`"]], [], [], []
    for name in WORLDS:
        try:
            model, shelf = lab.bundled(name)
            emoji = shelf[next(iter(shelf.find("emoji")), "emoji")]
            said = [_line(one.text) for one in model.chat_batch([QUESTION] * 2, [None, emoji], **_GREEDY)]
        except lab.RwkvLabError as error:
            missing.append(f"{name} is left out: {show(error, 400)[1:-1]}")
            continue
        arch = ARCH_NAMES[model.dims.arch]
        rows.append([arch, *said])
        sizes.append(f"{arch} {model._checkpoint.parameters / 1e6:.1f} M")
        codes += [" to ".join(_CODE.findall(text)) or "none" for text in said]
    lines = [f"One question, {QUESTION} (Tokyo to Paris), kept out of all training; greedy:\n"]
    if codes:
        lines += straight(rows, WIDTHS)
        if len(set(codes)) == 1:
            found = f"the same in all {len(codes)}, {codes[0]}: the state changes how it is said, not what."
        else:
            found = f"not the same: {', '.join(codes)}."
        lines += ["", f"The airports are {found}"]
        lines += [
            f"These are small models ({', '.join(sizes)} parameters), trained for minutes: they know questions about",
            "48 cities, functions of short strings, some poems, plays and novels, and nothing else.",
        ]
    return "\n".join([*(lines if codes else []), *missing])


def _line(text: str) -> str:
    return show(text.strip().replace("\n", "⏎"), 200)[1:-1]
