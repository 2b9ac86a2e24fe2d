"""The grammar of the names of checkpoints and states: which part of a name says what, whatever the order."""

from __future__ import annotations

import re

EXTENSIONS = (".safetensors", ".prefab", ".state", ".gguf", ".pth", ".bin", ".st", ".pt")
_FLAGS = re.IGNORECASE | re.ASCII


def _spellings(names: str) -> dict[str, str]:
    return {name.lower(): name for name in names.split()}


_KINDS = _spellings(
    "World Pile Raven Novel ChnNovel Jpn MIDI ABC Music CHNtuned JPNtuned Claude PilePlus Othello Sudoku"
)
_LANGS = _spellings("Chn Eng Jpn Other Multi Code Literature ChnEng EngChn MultiLang")
_ARCH = re.compile(r"rwkv-?v?([4-8])(?:\.(\d))?([ab]?)|x0([4-8])(\d)", _FLAGS)
_SERIES = re.compile(r"g[0-9][a-z]?[0-9]?(?:_preview[0-9]+)?", _FLAGS)
_SIZE = re.compile(r"(\d+)(?:[.](\d+))?([bm])|(\d+)([bm])(\d+)", _FLAGS)
_VERSION = re.compile(r"v\d+(?:\.\d+)?[a-z]?", _FLAGS)
_TRAINED = r"\d+(?:\.\d+)?[%_ ]?_?trained"
_PROGRESS = re.compile(
    rf"(?:onlyfortest_|test_)?{_TRAINED}|fixed|final|preview\d*|temp|test\d*|(?:step|epoch)[-_]?\d+|ckpt", _FLAGS
)
_PROGRESS_TAIL = re.compile(rf"(.+)_({_TRAINED})", _FLAGS | re.DOTALL)
_LANG = re.compile(rf"({'|'.join(_LANGS)})(\d{{1,3}}%)?", _FLAGS)
_DATE = re.compile(r"20\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])", _FLAGS)
_CTX = re.compile(r"ctx(\d{1,9})(k?)", _FLAGS)
_GEOMETRY = re.compile(r"[LD]\d+", _FLAGS)
_QUANT = re.compile(r"I?Q\d(?:_?(?:[K0-9](?:_[SMLX]{1,2})?|XX?S|NL))?|int[48]|nf4|b?fp?16|fp?32", _FLAGS)
_QUANT_TAIL = re.compile(rf"(.+)_({_QUANT.pattern})", _FLAGS | re.DOTALL)
EPOCH = re.compile(r"rwkv-(\d+(?:-state)?)")  # how trainers name what they save after an epoch
_JOINED = {"rwkv": re.compile(r"v?[4-8](?:\.\d)?[ab]?", _FLAGS)} | dict.fromkeys(
    ("step", "epoch"), re.compile(r"\d{1,7}", _FLAGS)
)
MAX_CTX = 10**9
# what browsers and file managers add to the name of a copy
_COPY = r" ?\(\d{1,3}\)| - (?:Copy|副本)| \(copy\)"
_COPIED = re.compile(rf"(?:copy of )?(.*?[^\s-].*?)(?:{_COPY}){{0,3}}", re.IGNORECASE | re.DOTALL)


def split_extension(text: str) -> tuple[str, str]:
    """Return a name without its extension, and the extension in lower case; "" if it is none of ours."""
    lower = text.lower()
    for ext in EXTENSIONS:
        if lower.endswith(ext) and len(text) > len(ext):
            return text[: -len(ext)], ext
    return text, ""


def original(stem: str) -> str:
    """Return a name without extension less what marks it as a copy: " (1)", " - Copy", "Copy of "."""
    found = _COPIED.fullmatch(stem)
    return found[1] if found else stem


def read_stem(stem: str) -> dict[str, str | int]:
    """Return the fields that a name without extension says."""
    tokens = _tokens(original(stem))
    found: dict[str, list[str]] = {}
    kinds = {token.lower() for token in tokens} & _KINDS.keys() - {"jpn"}
    for token in tokens:
        if "_" in token:
            if "quant" not in found and (tail := _QUANT_TAIL.fullmatch(token)):
                token, found["quant"] = tail[1], [tail[2]]
            if (tail := _PROGRESS_TAIL.fullmatch(token)) and not _PROGRESS.fullmatch(token):
                token = tail[1]
                found.setdefault("progress", []).append(tail[2])
        key, value = _classify(token, found, bool(kinds))
        if key:
            found.setdefault(key, []).append(value)
    if "geometry" in found:
        found["geometry"].sort(key=lambda part: part[0] != "L")
    joined: dict[str, str | int] = {key: "-".join(values) for key, values in found.items()}
    if "ctx" in joined:
        joined["ctx"] = int(joined["ctx"])
    return joined


def _tokens(stem: str) -> list[str]:
    """Split at `-`, keeping `RWKV-6` and `step-100` whole."""
    whole: list[str] = []
    for token in (token.strip() for token in stem.split("-")):
        joined = _JOINED.get(whole[-1].lower()) if whole else None
        if joined and joined.fullmatch(token):
            whole[-1] += f"-{token}"
        elif token:
            whole.append(token)
    return whole


def _classify(token: str, found: dict[str, list[str]], kinds: bool) -> tuple[str, str]:
    """Return the field that a token belongs to ("" for none) and its normal form; the rest is purpose.

    A field of one part is filled once; what repeats it is purpose. kinds tells that the name has a kind other than
    Jpn, which is a language too.
    """
    lower = token.lower()
    if arch := _ARCH.fullmatch(token):
        if "arch" in found:
            return "", token
        # 5 stands for 5.2, the one version of it that is in use
        minor = arch[2] or ("2" if arch[1] == "5" else "0")
        return "arch", f"x0{arch[4]}{arch[5]}" if arch[4] else f"x0{arch[1]}{minor}{arch[3].lower()}"
    if lower == "rwkv":
        return "", token
    if lower in _KINDS and "kind" not in found and not (kinds and lower == "jpn"):
        return "kind", _KINDS[lower]
    if (size := _SIZE.fullmatch(token)) and "size" not in found:
        return "size", _size(size)
    if (ctx := _CTX.fullmatch(token)) and "ctx" not in found:
        tokens = int(ctx[1]) * (1024 if ctx[2] else 1)
        return ("ctx", str(tokens)) if tokens < MAX_CTX else ("purpose", token)
    if _SERIES.fullmatch(token) and "series" not in found:
        return "series", lower
    for key, pattern in (("data_version", _VERSION), ("date", _DATE), ("quant", _QUANT)):
        if pattern.fullmatch(token) and key not in found:
            return key, lower if key == "data_version" else token
    if _GEOMETRY.fullmatch(token):
        return "geometry", token.upper()
    if lang := _LANG.fullmatch(token):
        return "lang", _LANGS[lang[1].lower()] + (lang[2] or "")
    return "progress" if _PROGRESS.fullmatch(token) else "purpose", token


def _size(match: re.Match[str]) -> str:
    if match[4]:
        whole, unit, part = match[4], match[5], match[6]
    else:
        whole, part, unit = match[1], match[2] or "", match[3]
    return f"{whole}{'.' + part if part else ''}{unit.upper()}"
