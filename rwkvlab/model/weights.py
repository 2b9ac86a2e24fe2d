"""A checkpoint file becomes weights in place: architecture and geometry are read off the keys, all shapes checked."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rwkvlab.errors import ArgError, MismatchError, NonFiniteError, SchemaError, show
from rwkvlab.model import rwkv5, rwkv6, rwkv7
from rwkvlab.model.containers import open_container
from rwkvlab.model.fingerprint import Fingerprint
from rwkvlab.model.memory import check_room
from rwkvlab.shapes import ARCH_NAMES, DTYPES, Dims
from rwkvlab.tensorfile import TensorFile

VERSIONS = {"x052": rwkv5, "x060": rwkv6, "x070": rwkv7}
BLOCK_KEY = re.compile(r"blocks\.(0|[1-9][0-9]{0,3})\.(.+)", re.ASCII)
EXACT = (".time_decay", ".time_faaaa")  # decays are fp32 in every model, and an exponential magnifies rounding
UNUSED = re.compile(r"blocks\.(0\.att\.v[012]|[0-9]+\.att\.time_state)", re.ASCII)


class Infos(Protocol):
    """Names, dtypes and shapes of the tensors of an open file."""

    def keys(self) -> Iterable[str]: ...  # noqa: D102
    def info(self, key: str) -> tuple[torch.dtype, tuple[int, ...]]: ...  # noqa: D102


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a model by their official keys, its geometry and its fingerprint."""

    dims: Dims
    weights: dict[str, Tensor]
    fingerprint: str

    @property
    def parameters(self) -> int:
        """How many numbers the weights are."""
        return sum(weight.numel() for weight in self.weights.values())


def load_weights(path: str | Path, device: torch.device, dtype: str | torch.dtype = "auto") -> Checkpoint:
    """Read a base checkpoint, tensor by tensor, to `device`; never more than one tensor above the weights themselves.

    path is a file or a Hugging Face folder, as `open_container` takes it; the fingerprint is the same from each.
    dtype "auto" keeps that of `emb.weight`; "fp32", "bf16" and "fp16" or a torch dtype convert. Raises LoadError of a
    kind that says what is wrong: an architecture that is not run here, tensors missing or misshapen, NaN; RoomError
    before anything is read where there is not enough free memory.
    """
    with open_container(path) as file:
        where = file.name
        try:
            dims, table = survey(file)
        except (SchemaError, MismatchError) as error:
            raise type(error)(f"{where}: {error}") from None
        if any(key.endswith(".att.time_state") for key in file.keys()):  # noqa: SIM118
            text = "holds a tuned state too, which is not mounted; load_state of the same file gives it"
            warnings.warn(f"{where}: {text}", stacklevel=3)
        target = _dtype(dtype, file.info("emb.weight")[0])
        kept = {key: torch.float32 if key.endswith(EXACT) else target for key in table}
        size = check_room(where, {key: math.prod(shape) for key, shape in table.items()}, kept, device)
        mark = Fingerprint()
        weights: dict[str, Tensor] = {}
        with tqdm(total=size, unit="B", unit_scale=True, delay=2, desc=show(where[1:-1], 40), leave=False) as bar:
            for key, shape in table.items():
                tensor = file.read(key)
                _check_finite(where, key, tensor, kept[key])
                tensor = tensor.reshape(shape)
                mark.add(key, tensor)
                weights[key] = _lay_out(key, tensor.to(device=device, dtype=kept[key]))
                bar.update(weights[key].nbytes)
                del tensor
    return Checkpoint(dims, weights, mark.hex())


def survey(file: Infos | TensorFile) -> tuple[Dims, dict[str, tuple[int, ...]]]:
    """Read architecture and geometry off a checkpoint's keys; returns them and the shape of every tensor to load.

    Raises SchemaError or MismatchError for anything that is not a whole RWKV-5.2, RWKV-6 or RWKV-7 base model.
    """
    shapes = {key: tuple(file.info(key)[1]) for key in file.keys()}  # noqa: SIM118
    arch = architecture(shapes)
    dims, ranks = _measure(arch, shapes)
    table = VERSIONS[arch].shapes(dims, ranks)
    name = ARCH_NAMES[arch]
    if missing := [key for key in table if key not in shapes]:
        raise SchemaError(f"{len(missing)} weights of {name} are missing: {_some(missing)}; download the file again")
    if extra := [key for key in shapes if key not in table and not UNUSED.fullmatch(key)]:
        raise SchemaError(f"{len(extra)} tensors are not part of {name}: {_some(extra)}; a variant not known here")
    for key, want in table.items():
        if _squeeze(shapes[key]) != _squeeze(want):
            raise MismatchError(f"{key}: expected {list(want)} for {dims}, got {list(shapes[key])}; download it again")
    return dims, table


def architecture(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return "x052", "x060" or "x070"; refuse, by name, what is not a base model or not run here."""
    has = shapes.__contains__
    if "emb.weight" not in shapes:
        if "wkv" in shapes or any(key.endswith(".time_state") for key in shapes):
            raise MismatchError("this is a tuned state, not a model; open it with load_state")
        if "0" in shapes and "1" in shapes:
            raise MismatchError("this is a list of tensors without names, as run-time states are; try load_state")
        if any("lora" in key.lower() for key in shapes):
            raise MismatchError("this is a LoRA adapter, not a model; merge it into its base model first")
        raise SchemaError(f"no emb.weight: not an RWKV base model; found {_some(list(shapes))}; give a base model")
    if any(".qkv." in key or key.startswith("qkv.") for key in shapes):
        raise MismatchError("this is RWKV-7b, which adds a growing key-value cache to the state; not run here")
    if has("blocks.0.ffn.enn.weight"):
        raise MismatchError("this is RWKV-8, which is not run here; RWKV-5.2, RWKV-6 and RWKV-7 are")
    if has("blocks.0.att.r_k"):
        if has("blocks.0.ffn.s_emb.weight"):
            raise MismatchError("this is RWKV-7a (DeepEmbed), which is not run here; RWKV-5.2, RWKV-6 and RWKV-7 are")
        return "x070"
    if has("blocks.0.att.time_maa_x"):
        return "x060"
    if has("blocks.0.att.gate.weight"):
        decay = shapes.get("blocks.0.att.time_decay", ())
        if len(decay) > 1 and decay[1] > 1:
            return "x052"
        raise MismatchError("this is RWKV-5.1, which is not run here; RWKV-5.2, RWKV-6 and RWKV-7 are")
    if has("blocks.0.att.ln_x.weight"):
        raise MismatchError("this is RWKV-5.0, which is not run here; RWKV-5.2, RWKV-6 and RWKV-7 are")
    if has("blocks.0.att.time_decay"):
        raise MismatchError("this is RWKV-4, which is not run here; RWKV-5.2, RWKV-6 and RWKV-7 are")
    raise SchemaError(f"not an RWKV base model; found {_some(list(shapes))}; give a base model")


def _measure(arch: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Dims, dict[str, int]]:
    blocks = {int(match[1]) for key in shapes if (match := BLOCK_KEY.fullmatch(key))}
    layers = len(blocks)
    if blocks != set(range(layers)):
        gap = next(i for i in range(layers) if i not in blocks)
        there = f"{layers} layers are there, numbered up to {max(blocks)}"
        raise SchemaError(f"layer {gap} is missing: {there}; download the file again, whole")

    def axes(key: str, count: int) -> tuple[int, ...]:
        if len(shape := shapes.get(key, ())) != count:
            got = list(shape) if key in shapes else "no such tensor"
            raise SchemaError(f"{key}: expected {count} axes, got {got}; download the file again")
        return shape

    vocab, width = axes("emb.weight", 2)
    heads, size = axes({"x070": "blocks.0.att.r_k"}.get(arch, "blocks.0.att.time_faaaa"), 2)
    ffn = axes("blocks.0.ffn.key.weight", 2)[0]
    if heads * size != width:
        raise MismatchError(
            f"geometry: width C={width} (emb.weight) is not H={heads} heads of {size}; download it again"
        )
    ranks: dict[str, int] = {}
    if arch == "x070":
        ranks = {name: axes(f"blocks.0.att.{name}1", 2)[1] for name in "wag"}
        ranks["v"] = axes("blocks.1.att.v1", 2)[1] if layers > 1 else 0
    elif arch == "x060":
        ranks = {"maa": axes("blocks.0.att.time_maa_w2", 3)[1], "decay": axes("blocks.0.att.time_decay_w1", 2)[1]}
    dims = Dims(arch, L=layers, H=heads, C=width, K=size, V=size, ffn=ffn, vocab=vocab)
    if min(vocab, width, ffn, *(rank for name, rank in ranks.items() if name != "v" or layers > 1)) < 1:
        text = ", ".join(f"{name} {rank}" for name, rank in ranks.items())
        raise MismatchError(f"geometry: a size is 0: {dims} ffn={ffn} vocab={vocab}, ranks {text}; save it again")
    return dims, ranks


def _lay_out(key: str, tensor: Tensor) -> Tensor:
    """Lay a tall fp32 matrix out by columns on the CPU: the matrix-vector product of decoding is up to 1.5x faster."""
    if tensor.device.type != "cpu" or tensor.dtype != torch.float32 or tensor.dim() != 2 or key == "emb.weight":
        return tensor
    return tensor.t().contiguous().t() if tensor.shape[0] >= 2 * tensor.shape[1] else tensor


def _dtype(wanted: str | torch.dtype, stored: torch.dtype) -> torch.dtype:
    if wanted == "auto":
        return stored if stored in DTYPES.values() else torch.float32
    dtype = DTYPES.get(wanted) if isinstance(wanted, str) else wanted
    if dtype not in DTYPES.values():
        raise ArgError(f"dtype: need 'auto', 'fp32', 'bf16' or 'fp16', got {show(wanted)}")
    return dtype  # type: ignore[return-value]


def _check_finite(where: str, key: str, tensor: Tensor, kept: torch.dtype) -> None:
    """Raise NonFiniteError for NaN, infinity, and values that the dtype to be kept turns into infinity."""
    low, high = torch.aminmax(tensor)  # propagates NaN and allocates nothing
    if not (torch.isfinite(low) and torch.isfinite(high)):
        bad = ~torch.isfinite(tensor)
        first = bad.nonzero()[0].tolist()
        raise NonFiniteError(
            f"{where}: {key}: {int(bad.sum())} values are NaN or infinite, the first at {first}; the file is damaged"
        )
    if (largest := max(abs(float(low)), abs(float(high)))) > torch.finfo(kept).max:
        name = next(name for name, dtype in DTYPES.items() if dtype == kept)
        raise NonFiniteError(f"{where}: {key}: {largest:.6g} is beyond {name}; load it with another dtype=")


def _squeeze(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _some(names: list[str]) -> str:
    """Return up to ten of the names, fewer where they are long: a message has 400 characters."""
    shown: list[str] = []
    for name in names[:10]:
        if sum(map(len, shown)) + 2 * len(shown) > 150:
            break
        shown.append(show(name, 40))
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
