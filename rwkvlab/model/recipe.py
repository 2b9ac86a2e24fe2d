"""Recipe: how a model is opened again in another process; what travels there is a path, not the weights."""

from __future__ import annotations

import hashlib
import os
import platform
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rwkvlab.errors import ArgError, MismatchError, PathError, RwkvLabError, show
from rwkvlab.model.vocab import VocabTokenizer
from rwkvlab.tensorfile import tensor_digest

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

KEPT = 2  # models that a process holds which were sent to it


@dataclass(frozen=True)
class Recipe:
    """What `load_model` was given, its path absolute, and what it found there: fingerprint and `Model.digests`.

    A tokenizer that is an object travels as it is, and tokenizer_id tells it from others.
    """

    path: str
    source: str
    device: str
    dtype: str
    backend: str
    tokenizer: Any = field(compare=False)
    tokenizer_id: str
    fingerprint: str = ""
    digests: tuple[str, str] = ("", "")

    @classmethod
    def of(cls, source: Any, path: Path, device: torch.device, dtype: Any, tokenizer: Any, backend: str) -> Recipe:
        """Return the recipe of a model that is being loaded; source is kept where it is an address on a hub."""
        ident = ""
        if isinstance(tokenizer, (str, Path)) and tokenizer not in ("world", "bytes"):
            tokenizer = Path(tokenizer).absolute()
        if tokenizer is not None:
            ident = str(tokenizer) if isinstance(tokenizer, (str, Path)) else uuid.uuid4().hex
        address = source if isinstance(source, str) and not os.path.lexists(source) else ""
        name = dtype if isinstance(dtype, str) else {torch.float32: "fp32", torch.bfloat16: "bf16"}.get(dtype, "fp16")
        return cls(str(path.absolute()), address, str(device), name, backend, tokenizer, ident)

    def open(self) -> Model:
        """Return the model, opened once in a process and kept there; the last two that were asked for are kept.

        Raises PathError or LoadError where there is no such file, and MismatchError where it holds another model.
        """
        slot = _slot(self)
        with slot.lock:
            if slot.model is None:
                slot.model = self._load()
            return slot.model

    def _load(self) -> Model:
        from rwkvlab.model.engine import load_model

        here = not self.source or os.path.lexists(self.path)
        try:
            model = load_model(
                Path(self.path) if here else self.source,
                device=self.device, dtype=self.dtype, tokenizer=self.tokenizer, backend=self.backend,
            )  # fmt: skip
        except RwkvLabError as error:
            if isinstance(error, PathError):
                where = (
                    f"a model is sent to other processes as its path, {show(self.path, 200)}: the file must be there"
                )
                raise PathError(f"{error}; {where}, on {show(platform.node())} too") from error
            raise
        again = "put the same file there on every machine, or load the model again"
        if (model.card.fingerprint, model.digests[0]) != (self.fingerprint, self.digests[0]):
            got, sent = show(model.digests[0], 12), show(self.digests[0], 12)
            raise MismatchError(
                f"{show(self.path, 200)}: holds another model ({got}) than the one that was sent ({sent}); {again}"
            )
        if model.digests[1] != self.digests[1]:
            name = show(self.tokenizer if isinstance(self.tokenizer, (str, Path)) else "tokenizer", 200)
            raise MismatchError(f"{name}: is another vocabulary than that of the model that was sent; {again}")
        return model


class _Slot:
    """Room for one model, so that threads that want it at once open it once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.model: Model | None = None


@lru_cache(maxsize=KEPT)
def _slot(recipe: Recipe) -> _Slot:
    return _Slot()


def reopen(recipe: Recipe) -> Model:
    """Return the model of a recipe: what unpickling a Model does."""
    return recipe.open()


def recipe_of(model: Model) -> Recipe:
    """Return how to open a model again; ArgError for one that was not made by `load_model`."""
    recipe = getattr(model, "recipe", None)
    if not isinstance(recipe, Recipe):
        raise ArgError(
            f"model {show(model.card.name)}: cannot be sent to another process, since it was not made by load_model; "
            "save its weights and load them, or use threads"
        )
    return replace(recipe, fingerprint=model.card.fingerprint, digests=model.digests)


def digest_weights(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of all weights by their official keys, wherever they are; about a second for each gigabyte."""
    total = hashlib.sha256()
    for key in tqdm(sorted(weights), delay=2, desc="digest of the weights", leave=False):
        total.update(tensor_digest({key: weights[key]}).encode())
    return total.hexdigest()


def digest_vocab(model: Model) -> str:
    """Return the SHA-256 of the ids and bytes of a model's vocabulary; "" where it has none, or an object's own."""
    try:
        tokenizer = model.tokenizer
    except RwkvLabError:
        return ""  # a model that reads ids only
    if not isinstance(tokenizer, VocabTokenizer):
        return ""
    total = hashlib.sha256()
    for index, token in sorted(tokenizer.tokens.items()):
        total.update(b"%d %d " % (index, len(token)) + token)
    return total.hexdigest()
