"""State: the immutable value that holds the hidden state of an RWKV model, and its arithmetic."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from rwkvlab.errors import ArgError, MismatchError, StateOpError, show
from rwkvlab.shapes import ARCH_NAMES, Dims, as_tensor, check_shape
from rwkvlab.states.card import ModelCard, StateCard, same_base


class HasDims(Protocol):
    """A model, seen from here: something with `dims` and `card`."""

    @property
    def dims(self) -> Dims: ...  # noqa: D102
    @property
    def card(self) -> ModelCard: ...  # noqa: D102


class State:
    """The hidden state of an RWKV model between two tokens: an immutable value.

    wkv is [L,H,V,K] fp32 (`y = S r`), att_shift and ffn_shift are [L,C] fp32 (the LayerNorm outputs of the last token;
    zeros at the start of a text). The tensors given are copied; operations return new states. Gradients flow through.
    """

    __slots__ = ("_att_shift", "_card", "_ffn_shift", "_versions", "_wkv")
    __array_ufunc__ = None  # so that numpy scalars on the left leave the arithmetic to us

    def __init__(
        self,
        wkv: Any,
        *,
        like: State | HasDims | None = None,
        att_shift: Any = None,
        ffn_shift: Any = None,
        card: StateCard | None = None,
    ) -> None:
        """Make a state from tensors or arrays of one's own.

        like is a model or a state whose geometry and base are taken; shifts left out are zeros.
        Raises ArgError for what is not a tensor of numbers, MismatchError where a shape does not fit.
        """
        wkv = as_tensor("wkv", wkv)
        if like is not None and not isinstance(like, State):
            dims = like.dims
            check_shape("wkv", wkv, L=dims.L, H=dims.H, V=dims.V, K=dims.K)
            card = card or StateCard(arch=dims.arch, base=like.card.fingerprint)
        elif isinstance(like, State):
            check_shape("wkv", wkv, **dict(zip("LHVK", like.wkv.shape, strict=True)))
            card = card or StateCard(arch=like.card.arch, base=like.card.base, template=like.card.template)
        if wkv.dim() != 4:
            raise MismatchError(f"wkv: expected [L,H,V,K], got {list(wkv.shape)}")
        layers, heads, _, keys = wkv.shape
        self._wkv = _own(wkv)
        for name, given in (("att_shift", att_shift), ("ffn_shift", ffn_shift)):
            if given is None:
                shift = torch.zeros(layers, heads * keys, device=wkv.device)
            else:
                shift = _own(check_shape(name, as_tensor(name, given), L=layers, C=heads * keys).to(wkv.device))
            object.__setattr__(self, f"_{name}", shift)
        self._card = card or StateCard()
        self._versions = tuple(tensor._version for tensor in self._tensors())

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self, "_versions") or name not in self.__slots__:
            raise AttributeError(f"State.{name} cannot be set: a state is a value; use state.replace({name}=…)")
        object.__setattr__(self, name, value)

    def __getstate__(self) -> tuple[Tensor, Tensor, Tensor, StateCard]:
        return (*self._tensors(), self._card)

    def __setstate__(self, data: tuple[Tensor, Tensor, Tensor, StateCard]) -> None:
        self._wkv, self._att_shift, self._ffn_shift, self._card = data
        self._versions = tuple(tensor._version for tensor in self._tensors())

    wkv = property(lambda self: self._get("_wkv"), doc="[L,H,V,K] fp32: the WKV matrices.")
    att_shift = property(lambda self: self._get("_att_shift"), doc="[L,C] fp32: LayerNorm-1 output of the last token.")
    ffn_shift = property(lambda self: self._get("_ffn_shift"), doc="[L,C] fp32: LayerNorm-2 output of the last token.")

    @property
    def card(self) -> StateCard:
        """What is known about this state."""
        return self._card

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self._wkv, self._att_shift, self._ffn_shift

    def _get(self, name: str) -> Tensor:
        if self._versions != tuple(tensor._version for tensor in self._tensors()):
            raise StateOpError(
                "state: a tensor of it was written to in place; make a new one with state.replace(wkv=…)"
            )
        return getattr(self, name)

    def replace(
        self, *, wkv: Any = None, att_shift: Any = None, ffn_shift: Any = None, card: StateCard | None = None
    ) -> State:
        """Return a new State with some tensors or the card replaced; the rest is copied from this one."""
        return State(
            self.wkv if wkv is None else wkv,
            like=self,
            att_shift=self.att_shift if att_shift is None else att_shift,
            ffn_shift=self.ffn_shift if ffn_shift is None else ffn_shift,
            card=card or self.card,
        )

    def named(self, name: str) -> State:
        """Return the same state under another name."""
        return self.replace(card=self.card.replace(name=name))

    def to(self, device: str | torch.device) -> State:
        """Return the state on another device; fp32 everywhere."""
        moved = (tensor.to(device) for tensor in (self.wkv, self.att_shift, self.ffn_shift))
        return State(next(moved), att_shift=next(moved), ffn_shift=next(moved), card=self.card)

    def detach(self) -> State:
        """Return the state cut off from the graph that made it."""
        return State(
            self.wkv.detach(), att_shift=self.att_shift.detach(), ffn_shift=self.ffn_shift.detach(), card=self.card
        )

    @property
    def has_shifts(self) -> bool:
        """Whether any token-shift is not zero; tuned states from files have none."""
        return bool(self.att_shift.any() or self.ffn_shift.any())

    def __add__(self, other: object) -> State:
        return _combine(self, other, 1.0, "+")

    def __sub__(self, other: object) -> State:
        return _combine(self, other, -1.0, "-")

    def __mul__(self, factor: object) -> State:
        value = _factor(factor)
        return _derive(self, value, f"{value:g} * {_term(self, product=True)}")

    __rmul__ = __mul__

    def __truediv__(self, factor: object) -> State:
        value = _factor(factor)
        if value == 0:
            raise StateOpError("state / 0: division by zero")
        return _derive(self, 1.0 / value, f"{_term(self, product=True)} / {value:g}")

    def __neg__(self) -> State:
        return _derive(self, -1.0, f"-{_term(self, product=True)}")

    def __repr__(self) -> str:
        layers, heads, values, keys = self.wkv.shape
        arch = ARCH_NAMES.get(self.card.arch, self.card.arch)
        name = f"{show(self.card.name)} " if self.card.name else ""
        norm = float(self.wkv.detach().norm())
        where = "" if self.wkv.device.type == "cpu" else f" on {self.wkv.device}"
        size = f"L{layers} H{heads} V{values} K{keys}, {self.wkv.numel() * 4 / 2**20:.1f} MiB"
        return f"<State {name}{arch + ' ' if arch else ''}{size}, norm {norm:.3g}{where}>"


def check_fits(state: State, model: HasDims, *, any_base: bool = False) -> None:
    """Raise MismatchError, saying what differs, unless `state` can be mounted on `model`."""
    dims, card, name = model.dims, state.card, show(state.card.name or "state")
    want, got = (dims.L, dims.H, dims.V, dims.K), tuple(state.wkv.shape)
    if card.arch and card.arch != dims.arch:
        made = ARCH_NAMES.get(card.arch, show(card.arch))
        raise MismatchError(f"{name}: made for {made}, the model is {dims}; load the model that it was tuned on")
    if want != got:
        pairs = zip("LHVK", want, got, strict=True)
        differs = ", ".join(f"{letter}={have} (model {need})" for letter, need, have in pairs if need != have)
        raise MismatchError(f"{name}: {differs}; the model is {dims}: load the model that it was tuned on")
    if not any_base and not same_base(card.base, model.card.fingerprint):
        raise MismatchError(
            f"{name}: its card names another base model ({card.base[:12]}…, this one is {model.card.fingerprint[:12]}…);"
            " load that model, or pass any_base=True to mount it all the same"
        )


def _own(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32, copy=True).contiguous()


def _factor(value: object) -> float:
    try:
        number = float(value) if not isinstance(value, (State, str)) else math.nan  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ArgError(f"state arithmetic: need a finite number, got {show(value)}")
    return number


def _term(state: State, *, product: bool = False) -> str:
    recipe = state.card.recipe
    if not state.card.parents:
        return state.card.name or "state"
    return f"({recipe})" if product and (" + " in recipe or " - " in recipe) else recipe


def _parents(state: State) -> tuple[str, ...]:
    return state.card.parents or (state.card.name or "state",)


def _derive(a: State, factor: float, recipe: str) -> State:
    card = a.card.replace(name="", recipe=recipe, parents=_parents(a), source="", notes=())
    return State(a.wkv * factor, att_shift=a.att_shift * factor, ffn_shift=a.ffn_shift * factor, card=card)


def _combine(a: State, b: object, sign: float, symbol: str) -> State:
    if not isinstance(b, State):
        raise ArgError(f"state {symbol} …: need a State on both sides, got {type(b).__name__}")
    if a.wkv.shape != b.wkv.shape:
        raise MismatchError(f"state {symbol} state: shapes differ, {list(a.wkv.shape)} and {list(b.wkv.shape)}")
    if a.card.arch and b.card.arch and a.card.arch != b.card.arch:
        raise MismatchError(f"state {symbol} state: architectures differ, {show(a.card.arch)} and {show(b.card.arch)}")
    if not same_base(a.card.base, b.card.base):
        raise MismatchError(f"state {symbol} state: base models differ, {a.card.base[:12]}… and {b.card.base[:12]}…")
    card = StateCard(
        arch=a.card.arch or b.card.arch,
        base=a.card.base or b.card.base,
        template=a.card.template if a.card.template == b.card.template else "",
        recipe=f"{_term(a)} {symbol} {_term(b, product=sign < 0)}",
        parents=tuple(dict.fromkeys((*_parents(a), *_parents(b)))),
    )
    b = b.to(a.wkv.device)
    return State(
        a.wkv + sign * b.wkv,
        att_shift=a.att_shift + sign * b.att_shift,
        ffn_shift=a.ffn_shift + sign * b.ffn_shift,
        card=card,
    )
