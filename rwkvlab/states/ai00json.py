"""The JSON of Ai00's /api/oai/states, read strictly: fp32 numbers in web-rwkv's memory order, token-shifts included."""

from __future__ import annotations

import json
import os
import re
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from rwkvlab.errors import FormatError, LimitError, MismatchError, NonFiniteError, SchemaError, show
from rwkvlab.states.card import StateCard
from rwkvlab.states.layouts import check_orientation, note_of
from rwkvlab.states.names import parse_name
from rwkvlab.states.reading import ARCHS, finite, make_card, noted
from rwkvlab.states.state import State
from rwkvlab.tensorfile.source import Source

MAX_JSON = 512 << 20  # the state of the largest published model takes about 350 MiB of text
MAX_REST = 64 << 10  # all that is not numbers
PIECE = 1 << 20
_DATA = re.compile(rb'"data"\s*:\s*\[(?=\s*[^][\s{])')  # the list of numbers, not the list of objects around it
_NUMBERS = "#numbers"
_AGAIN = "save the answer of Ai00's /api/oai/states as it came"


def is_json(path: str | os.PathLike[str]) -> bool:
    """Tell by its first bytes whether a file is a JSON text; raises PathError, LimitError or TruncatedError."""
    with closing(Source(path)) as source:
        head = source.bytes_at(0, min(source.size, 64))
    # the length that a safetensors file begins with has zeros in it
    return b"\0" not in head[:8] and head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def read_json(path: str | os.PathLike[str], orientation: str | None = None) -> State:
    """Return the state in the answer of Ai00's /api/oai/states, or in the object {"data", "shape"} that it holds.

    shape is [C, N+2, L, 1], the first axis the fastest: row 0 of a layer is the attention shift, row 1+k, column h*N+v
    the matrices, row N+1 the ffn shift. Raises FormatError, SchemaError, LimitError, MismatchError (sizes) and
    NonFiniteError; the message names the field.
    """
    data, item, arch, source = _read(path, numbers=True)
    assert data is not None
    check_orientation(orientation)
    width, rows, layers = _shape(source.name, item)
    size = rows - 2
    grid = finite(source.name, "data", data).view(layers, rows, width)
    wkv = grid[:, 1:-1].view(layers, size, width // size, size).permute(0, 2, 3, 1)  # [L,K,H,V] -> [L,H,V,K]
    wkv = wkv.mT if orientation == "VK" else wkv
    card = _card(source, arch, note_of(orientation, "KV"))
    return State(wkv, att_shift=grid[:, 0], ffn_shift=grid[:, -1], card=noted(card, wkv))


def peek_json(path: str | os.PathLike[str]) -> tuple[StateCard, tuple[int, ...]]:
    """Return card and shape [L,H,V,K] without turning the numbers into a tensor; raises as `read_json` does."""
    _, item, arch, source = _read(path, numbers=False)
    width, rows, layers = _shape(source.name, item)
    return _card(source, arch, ()), (layers, width // (rows - 2), rows - 2, rows - 2)


def _card(source: Source, arch: str, notes: tuple[str, ...]) -> StateCard:
    named = parse_name(source.path.name).arch in ARCHS
    if arch and not named:
        notes = (f"architecture {arch} taken from the model that the file names", *notes)
    return make_card(source.path, "JSON of /api/oai/states", "" if named else arch, notes)


def _read(path: str | os.PathLike[str], *, numbers: bool) -> tuple[Tensor | None, dict[str, Any], str, Source]:
    """Return the numbers, the object with the shape, the architecture by the model's name, and the (closed) source."""
    with closing(Source(path)) as source:
        if source.size > MAX_JSON:
            raise LimitError(
                f"{source.name}: {source.size:,} bytes of JSON, at most {MAX_JSON:,} are read; {_AGAIN}, or save the "
                "state as .safetensors"
            )
        text = source.bytes_at(0, source.size).removeprefix(b"\xef\xbb\xbf")
    name, found = source.name, _DATA.search(text)
    end = text.find(b"]", found.end()) if found else -1
    if found is None or end < 0:
        raise SchemaError(
            f"{name}: is a JSON text without a list of numbers called data, so no state of Ai00; {_AGAIN}"
        )
    start = found.end()
    rest = _rest(name, text[: start - 1] + json.dumps(_NUMBERS).encode() + text[end + 1 :])
    item = rest
    if isinstance(rest.get("data"), list):
        item = rest["data"][0] if len(rest["data"]) == 1 else None
    if not isinstance(item, dict) or item.get("data") != _NUMBERS:
        raise SchemaError(f"{name}: data: need one list of numbers beside its shape; {_AGAIN}")
    width, rows, layers = _shape(name, item)
    need, count = width * rows * layers, text.count(b",", start, end) + 1
    if need != count:
        raise MismatchError(
            f"{name}: shape: {[width, rows, layers, 1]} needs {need:,} numbers, data has {count:,}; {_AGAIN}"
        )
    model = rest.get("model")
    arch = parse_name(model).arch if isinstance(model, str) else ""
    data = _numbers(name, memoryview(text)[start:end], count) if numbers else None
    return data, item, arch if arch in ARCHS else "", source


def _rest(name: str, text: bytes) -> dict[str, Any]:
    """Parse what is left of the text without its numbers."""
    if len(text) > MAX_REST:
        raise LimitError(f"{name}: {len(text):,} bytes beside the list of numbers, at most {MAX_REST:,}; {_AGAIN}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) != len(keys):
            raise SchemaError(f"{name}: {show(max(keys, key=keys.count))}: is there twice; {_AGAIN}")
        return dict(pairs)

    try:
        rest = json.loads(text.decode("utf-8"), object_pairs_hook=once)
    except SchemaError:
        raise
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name}: is not JSON in UTF-8 ({show(error, 60)}); {_AGAIN}") from error
    if not isinstance(rest, dict):
        raise SchemaError(f"{name}: need an object with data and shape, got a {type(rest).__name__}; {_AGAIN}")
    return rest


def _shape(name: str, item: dict[str, Any]) -> tuple[int, int, int]:
    """Return C, N+2 and L."""
    match item.get("shape"):
        case [int(width), int(rows), int(layers), 1] as shape if (
            all(type(x) is int and 0 < x < 2**31 for x in shape) and rows > 2 and width % (rows - 2) == 0
        ):
            return width, rows, layers
        case shape:
            raise SchemaError(
                f"{name}: shape: need [C, N+2, L, 1], C a multiple of the head size N, got {show(shape)}; {_AGAIN}"
            )


def _numbers(name: str, text: memoryview, count: int) -> Tensor:
    """Return `count` numbers, separated by commas, as fp32: piece by piece, since Python's numbers take much memory."""
    out, done, start = torch.empty(count), 0, 0
    while start < len(text):
        piece = bytes(text[start : start + PIECE])
        if start + PIECE < len(text):
            cut = piece.rfind(b",")
            if cut < 0:
                raise FormatError(f"{name}: data[{done}]: a number of more than {PIECE:,} digits; {_AGAIN}")
            piece = piece[:cut]
        start += len(piece) + 1
        try:
            values = json.loads("[" + piece.decode("ascii") + "]")
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{name}: data: from number {done} on, not a list of numbers; {_AGAIN}") from error
        if not set(map(type, values)) <= {float, int}:
            index = next(i for i, value in enumerate(values) if type(value) not in (float, int))
            raise _odd(name, done + index, values[index])
        try:
            out[done : done + len(values)] = torch.tensor(values, dtype=torch.float64).float()
        except (RuntimeError, OverflowError) as error:
            raise NonFiniteError(f"{name}: data: a number after {done} is beyond fp32; make the state again") from error
        done += len(values)
    if done != count:
        raise FormatError(f"{name}: data: a comma too many after number {done - 1}; {_AGAIN}")
    return out


def _odd(name: str, index: int, value: object) -> Exception:
    if value is None:
        return NonFiniteError(f"{name}: data[{index}]: is null, as JSON writes NaN; make the state again")
    return SchemaError(f"{name}: data[{index}]: need a number, got a {type(value).__name__}; {_AGAIN}")
