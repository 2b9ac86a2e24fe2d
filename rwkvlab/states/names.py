"""parse_name: what the name of a checkpoint or state says, as the community writes them; a hint, never a proof."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

EXTENSIONS = (".safetensors", ".prefab", ".state", ".gguf", ".pth", ".bin", ".st", ".pt")
_KINDS = {
    kind.lower(): kind
    for kind in (
        *(
            "World",
            "Pile",
            "Raven",
            "Novel",
            "ChnNovel",
            "Jpn",
            "MIDI",
            "ABC",
            "Music",
            "CHNtuned",
            "JPNtuned",
            "Claude",
        ),
        *("PilePlus", "Othello", "Sudoku"),
    )
}
_ARCH = re.compile(r"rwkv-?([4-8])(?:\.\d)?([ab]?)|x0([4-8])(\d)", re.I)
_SERIES = re.compile(r"g[0-9][a-z]?[0-9]?(?:_preview[0-9]+)?", re.I)
_SIZE = re.compile(r"(\d+)(?:[.](\d+))?([bmt])|(\d+)([bm])(\d+)", re.I)
_VERSION = re.compile(r"v\d+(?:\.\d+)?[a-z]?", re.I)
_PROGRESS = re.compile(
    r"(?:\w+_)?\d+(?:\.\d+)?[%_ ]?_?trained|fixed|final|preview\d*|temp|test\d*|(?:step|epoch)[-_]?\d+|ckpt", re.I
)
_LANG = re.compile(r"(?:chn|eng|jpn|other|multi|code|literature)\d{1,3}%|chn|eng|chneng|engchn|jpn|multilang", re.I)
_DATE = re.compile(r"20\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")
_CTX = re.compile(r"ctx(\d+)(k?)", re.I)
_GEOMETRY = re.compile(r"[LD]\d+", re.I)
_QUANT = re.compile(r"I?Q\d_?(?:[K0-9](?:_[SMLX]{1,2})?)?|q[48]k|int[48]|nf4|fp16|fp32|bf16|f16|f32", re.I)
_QUANT_TAIL = re.compile(rf"(.+)_({_QUANT.pattern})", re.I | re.S)
MAX_NAME = 4096  # characters; what is beyond says nothing about a model


@dataclass(frozen=True)
class NameCard:
    """What a file name says; a field is empty (None for ctx) where the name does not say it.

    text is the name as read (percent-decoded), stem the same without ext. arch is "x040" … "x080", with the letter of a
    variant behind ("x070a"); series "g1a4"; kind "World"; size as "1.5B" or "450M" (1B5, 2b9 and 1.5b alike);
    data_version "v2.1"; purpose what is left, such as "chn_文言文QA"; progress "82%trained"; lang; date "20241114";
    ctx in tokens; geometry "L33-D512"; quant "Q8_0"; ext ".pth".
    """

    text: str
    stem: str
    arch: str = ""
    series: str = ""
    kind: str = ""
    size: str = ""
    data_version: str = ""
    purpose: str = ""
    progress: str = ""
    lang: str = ""
    date: str = ""
    ctx: int | None = None
    geometry: str = ""
    quant: str = ""
    ext: str = ""

    @property
    def missing(self) -> tuple[str, ...]:
        """The fields that Ai00's documentation requires in the name of a state and that are empty here."""
        return tuple(field for field in ("arch", "kind", "size", "purpose") if not getattr(self, field))


def parse_name(name: object) -> NameCard:
    """Read a file name (or the last part of a path) and return what it says; never raises."""
    try:
        text = name if isinstance(name, str) else str(name)
    except Exception:
        text = ""
    text = unquote(re.split(r"[/\\]", text[:MAX_NAME])[-1]).replace("\0", "")
    # a percent-encoded name may hold a folder, too
    text = re.split(r"[/\\]", text)[-1]
    stem, ext = _split_extension(text)
    fields: dict[str, list[str]] = {}
    body, quant = stem, _QUANT_TAIL.fullmatch(stem)
    if quant and not quant[1].isdigit():
        body = quant[1]
        fields["quant"] = [quant[2]]
    for token in _tokens(body):
        key, value = _classify(token, fields)
        fields.setdefault(key, []).append(value)
    ctx = fields.pop("ctx", [])
    joined = {key: "-".join(values) for key, values in fields.items() if key != "drop"}
    return NameCard(text, stem, ctx=int(ctx[0]) if ctx else None, ext=ext, **joined)  # type: ignore[arg-type]


def _split_extension(text: str) -> tuple[str, str]:
    lower = text.lower()
    for ext in EXTENSIONS:
        if lower.endswith(ext) and len(text) > len(ext):
            return text[: -len(ext)], lower[-len(ext) :]
    return text, ""


def _tokens(body: str) -> list[str]:
    """Split at `-`, keeping `RWKV-6` whole and a percentage with its `%` apart from what follows."""
    tokens = [token.strip() for token in body.split("-") if token.strip()]
    whole: list[str] = []
    for token in tokens:
        if whole and whole[-1].lower() == "rwkv" and re.fullmatch(r"[4-8](?:\.\d)?[ab]?", token, re.I):
            whole[-1] += f"-{token}"
        else:
            whole.append(token)
    return whole


def _classify(token: str, found: dict[str, list[str]]) -> tuple[str, str]:
    """Return the field that a token belongs to and its normal form; a field is filled once, the rest is purpose."""
    new = found.keys().__contains__
    if (match := _ARCH.fullmatch(token)) and not new("arch"):
        if match[3]:
            return "arch", f"x0{match[3]}{match[4]}"
        # 5 stands for 5.2, the one version of it that is in use
        return "arch", "x052" if match[1] == "5" else f"x0{match[1]}0{match[2].lower()}"
    if token.lower() == "rwkv" or _ARCH.fullmatch(token):
        return "drop", token
    if _SERIES.fullmatch(token) and not new("series"):
        return "series", token.lower()
    if token.lower() in _KINDS and not new("kind"):
        return "kind", _KINDS[token.lower()]
    if (match := _SIZE.fullmatch(token)) and not new("size"):
        return "size", _size(match)
    if (match := _CTX.fullmatch(token)) and not new("ctx") and len(match[1]) < 9:
        return "ctx", str(int(match[1]) * (1024 if match[2] else 1))
    for key, pattern in (("data_version", _VERSION), ("date", _DATE), ("quant", _QUANT)):
        if pattern.fullmatch(token) and not new(key):
            return key, token
    for key, pattern in (("geometry", _GEOMETRY), ("progress", _PROGRESS), ("lang", _LANG)):
        if pattern.fullmatch(token):
            return key, token
    return "purpose", token


def _size(match: re.Match[str]) -> str:
    if match[4]:
        whole, unit, part = match[4], match[5], match[6]
    else:
        whole, part, unit = match[1], match[2] or "", match[3]
    return f"{whole}{'.' + part if part else ''}{unit.upper()}"
