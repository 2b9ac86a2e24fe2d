"""The names that Ai00, fla and transformers give to the weights of an RWKV become the official ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from rwkvlab.errors import SchemaError

Shapes = Mapping[str, tuple[int, ...]]
Rename = Callable[[str], tuple[str, bool]]

# the names of fla and of PyPI's rwkv7-hf; those that transformers gives are the official ones behind "rwkv7."
_FLA_TOP = {"model.embeddings.": "emb.", "model.norm.": "ln_out.", "lm_head.": "head."}
_FLA_PARTS = {"attn": "att", "ffn": "ffn", "pre_norm": "ln0", "attn_norm": "ln1", "ffn_norm": "ln2"}
_FLA_ATT = {"r_proj": "receptance", "k_proj": "key", "v_proj": "value", "o_proj": "output", "g_norm": "ln_x"}
_FLA_KEY = re.compile(r"model\.layers\.([0-9]+)\.(attn|ffn|pre_norm|attn_norm|ffn_norm)\.(.+)", re.ASCII | re.DOTALL)
_FLA_LORA = re.compile(r"([wavg])_lora\.lora\.(0\.weight|2\.weight|2\.bias)", re.ASCII)
_FLA_NEEDED = ("model.embeddings.weight", "lm_head.weight", "model.layers.0.attn.r_k")
_FLA_NUMBER = {"0.weight": "1", "2.weight": "2", "2.bias": "0"}
_LORA = re.compile(r"blocks\.[0-9]+\.att\.(time_maa_w|time_mix_w|time_decay_w|[wavg])([12])", re.ASCII)


def renamer(name: str, shapes: Shapes, *, whole: bool) -> Rename:
    """Return the function from a stored name to the official one and whether the last two axes are swapped."""
    if "rwkv7.emb.weight" in shapes:
        return lambda key: (key.removeprefix("rwkv7."), False)
    if any(_FLA_KEY.fullmatch(key) or key.startswith("model.embeddings.") for key in shapes):
        if lost := [key for key in _FLA_NEEDED if key not in shapes]:
            remedy = "download the folder again" if whole else "if it is one of several files, give their folder"
            raise SchemaError(f"{name}: has names as on Hugging Face, but no {lost[0]}: not a whole RWKV-7; {remedy}")
        return _from_fla
    return _ai00(shapes)


def _from_fla(key: str) -> tuple[str, bool]:
    for top, official in _FLA_TOP.items():
        if key.startswith(top):
            return official + key.removeprefix(top), False
    if not (match := _FLA_KEY.fullmatch(key)):
        return key, False
    layer, part, rest = match.groups()
    stem = f"blocks.{layer}.{_FLA_PARTS[part]}."
    if part != "attn":
        return stem + rest, False
    if lora := _FLA_LORA.fullmatch(rest):
        return stem + lora[1] + _FLA_NUMBER[lora[2]], lora[2] != "2.bias"
    head, dot, tail = rest.partition(".")
    return stem + _FLA_ATT.get(head, head) + dot + tail, False


def _ai00(shapes: Shapes) -> Rename:
    """Return how to read a checkpoint with official names or with those that the converter of Ai00 gives.

    It renames weights of RWKV-5 and RWKV-6, and stores the two matrices of a LoRA the other way round. That shows in
    their shapes: one side is the width. An RWKV-7 whose LoRAs are all square is taken to be official.
    """
    sixth = "blocks.0.att.time_mix_x" in shapes
    first = sixth or "blocks.0.att.gate.weight" in shapes  # RWKV-4 has its own time_first
    swapped = _swapped(shapes)

    def rename(key: str) -> tuple[str, bool]:
        official = key.replace(".time_first", ".time_faaaa") if first else key
        official = official.replace(".time_mix_", ".time_maa_") if sixth else official
        return official, swapped and _LORA.fullmatch(key) is not None

    return rename


def _swapped(shapes: Shapes) -> bool:
    width = shapes.get("emb.weight", ())[-1:]
    for key, shape in shapes.items():
        if (match := _LORA.fullmatch(key)) and len(shape) > 1 and shape[-1] != shape[-2]:
            outer = shape[-2:-1] if match[2] == "1" else shape[-1:]  # official: [C, rank] and [rank, C]
            return outer != width
    return False


def swap(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape with its last two axes swapped."""
    return (*shape[:-2], shape[-1], shape[-2]) if len(shape) > 1 else shape
