"""State: the immutable value that holds the hidden state of an RWKV model, and its arithmetic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rwkvlab.errors import ArgError, MismatchError, StateOpError, show
from rwkvlab.shapes import as_number, as_tensor, check_shape
from rwkvlab.states.card import StateCard, parents_of, term_of
from rwkvlab.states.fits import HasDims, check_alike, check_model, common_card
from rwkvlab.states.fits import check_fits as check_fits
from rwkvlab.states.render import describe, to_html


class State:
    """The hidden state of an RWKV model between two tokens: an immutable value.

    wkv is [L,H,V,K] fp32 (`y = S r`), att_shift and ffn_shift are [L,C] fp32 (the LayerNorm outputs of the last token;
    zeros at the start of a text). The tensors given are copied; operations return new states. Gradients flow through.
    A tensor of it that was written to in place is refused from then on; only writes through .numpy() go unseen.
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
            dims = check_model("like", like).dims
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
        self._versions = self._written()

    @classmethod
    def from_fla(
        cls, tensors: Any, like: Any = None, *, att_shift: Any = None, ffn_shift: Any = None, card: Any = None
    ) -> State:
        """Make a state from the caches of fla or transformers: one tensor a layer, [B=1,H,K,V] or [H,K,V].

        Shifts are one tensor a layer, [C] or [B=1,C]; the rest is as in `State(…)`. Raises also NonFiniteError.
        """
        from rwkvlab.states.runtime import from_fla

        return from_fla(tensors, like, att_shift, ffn_shift, card)

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self, "_versions") or name not in self.__slots__:
            raise AttributeError(f"State.{name} cannot be set: a state is a value; use state.replace({name}=…)")
        object.__setattr__(self, name, value)

    def __getstate__(self) -> tuple[Tensor, Tensor, Tensor, StateCard]:
        return (*self._tensors(), self._card)

    def __setstate__(self, data: tuple[Tensor, Tensor, Tensor, StateCard]) -> None:
        self._wkv, self._att_shift, self._ffn_shift, self._card = data
        self._versions = self._written()

    wkv = property(lambda self: self._get("_wkv"), doc="[L,H,V,K] fp32: the WKV matrices.")
    att_shift = property(lambda self: self._get("_att_shift"), doc="[L,C] fp32: LayerNorm-1 output of the last token.")
    ffn_shift = property(lambda self: self._get("_ffn_shift"), doc="[L,C] fp32: LayerNorm-2 output of the last token.")

    @property
    def card(self) -> StateCard:
        """What is known about this state."""
        return self._card

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self._wkv, self._att_shift, self._ffn_shift

    def _written(self) -> tuple[int, ...]:
        """How often each tensor was written to in place; tensors of inference mode do not count it."""
        return tuple(0 if tensor.is_inference() else tensor._version for tensor in self._tensors())

    def _get(self, name: str) -> Tensor:
        if self._versions != self._written():
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
        try:
            wkv, att_shift, ffn_shift = (x.to(torch.device(device)) for x in (self.wkv, self.att_shift, self.ffn_shift))
        except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
            raise ArgError(f"device: {show(device)} cannot be used here; 'cpu' always can") from error
        return State(wkv, att_shift=att_shift, ffn_shift=ffn_shift, card=self.card)

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
        value = as_number("state arithmetic", factor)
        return _derive(self, value, f"{value:.9g} * {term_of(self, product=True)}")

    __rmul__ = __mul__

    def __truediv__(self, factor: object) -> State:
        value = as_number("state arithmetic", factor)
        if value == 0:
            raise StateOpError("state / 0: division by zero")
        return _derive(self, 1.0 / value, f"{term_of(self, product=True)} / {value:.9g}")

    def __neg__(self) -> State:
        return _derive(self, -1.0, f"-{term_of(self, product=True)}")

    def zero(self, layer: int, head: int | None = None) -> State:
        """Return the state without one head, or without all of a layer's; token-shifts stay. Raises ArgError."""
        from rwkvlab.states.blend import without

        return without(self, layer, head)

    def plot(self, layer: int | None = None, head: int | None = None, *, ax: Any = None) -> Any:
        """Draw the norm of every head, or the matrix of one, as `lab.plot_heads` and `lab.plot_head` do.

        ax: matplotlib Axes, None: pyplot's current ones; they are returned and not shown. Raises ArgError for a place
        that is not there.
        """
        # the plots stand a floor above; a value that is looked at in a notebook draws itself all the same
        from rwkvlab.plots import plot_head, plot_heads

        if layer is None and head is None:
            return plot_heads(self, ax=ax)
        return plot_head(self, layer, head, ax)  # type: ignore[arg-type]  # None is refused there

    def __repr__(self) -> str:
        return describe(self)

    def _repr_html_(self) -> str:
        return to_html(self)


def _own(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32, copy=True).contiguous()


def _derive(a: State, factor: float, recipe: str) -> State:
    card = a.card.replace(name="", recipe=recipe, parents=parents_of(a), source="", notes=())
    return State(a.wkv * factor, att_shift=a.att_shift * factor, ffn_shift=a.ffn_shift * factor, card=card)


def _combine(a: State, b: object, sign: float, symbol: str) -> State:
    if not isinstance(b, State):
        raise ArgError(f"state {symbol} …: need a State on both sides, got {type(b).__name__}")
    check_alike(a, b, f"state {symbol} state")
    recipe = f"{term_of(a)} {symbol} {term_of(b, product=sign < 0)}"
    card = common_card([a, b], recipe, [*parents_of(a), *parents_of(b)])
    b = b.to(a.wkv.device)
    return State(
        a.wkv + sign * b.wkv,
        att_shift=a.att_shift + sign * b.att_shift,
        ffn_shift=a.ffn_shift + sign * b.ffn_shift,
        card=card,
    )
