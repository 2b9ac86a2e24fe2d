"""Hints, short of proof, that a state file without a card was made for another architecture than the model's."""

from __future__ import annotations

import re
from pathlib import Path

from rwkvlab.errors import show
from rwkvlab.shapes import ARCH_NAMES
from rwkvlab.states.names import NameCard, parse_name

_LOOSE = re.compile(r"rwkv[-_ .]?v?([4-8])(?![0-9])|(?<![0-9a-z])x0([4-8])[0-9](?![0-9])", re.I)
_FIRST_7 = "20241001"  # no RWKV-7 was published before
# the sizes of the published models, where a size belongs to one version (and the one before it) only
_SIZES = {"1.6B": "6", "3B": "56", "7B": "56", "14B": "6"} | dict.fromkeys(("2.9B", "7.2B", "13.3B"), "7")


def hint_against(path: Path, arch: str) -> str:
    """Return why a file seems made for another architecture than arch ("x052", "x060", "x070"), "" if nothing does.

    Looks at what a name says in passing: a version in a loose spelling there or in the folder's name, a size that only
    other versions have, the series of RWKV-7, a date before it.
    """
    said, version = parse_name(path.name), arch[2:3]
    for where, text in (("name", said.stem), ("folder", path.absolute().parent.name)):
        versions = {match[1] or match[2] for match in _LOOSE.finditer(text)}
        if versions and version not in versions:
            return f"its {where} {show(text, 40)} names RWKV-{min(versions)}"
    return _by_size_or_date(said, version)


def _by_size_or_date(said: NameCard, version: str) -> str:
    fits = _SIZES.get(said.size)
    if fits and version not in fits:
        return f"its name says {show(said.size)}, a size of {' and '.join(f'RWKV-{v}' for v in fits)}"
    if said.series and version != "7":
        return f"its name says {show(said.series)}, a series of {ARCH_NAMES['x070']}"
    if said.date and said.date < _FIRST_7 and version == "7":
        return f"its name says {show(said.date)}, before {ARCH_NAMES['x070']}"
    return ""
