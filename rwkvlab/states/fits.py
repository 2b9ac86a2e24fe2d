"""Whether a state goes with a model, or with another state; if not, what differs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rwkvlab.errors import ArgError, MismatchError, show
from rwkvlab.shapes import ARCH_NAMES, Dims
from rwkvlab.states.card import ModelCard, StateCard, same_base
from rwkvlab.states.layouts import ASSUMED

if TYPE_CHECKING:
    from rwkvlab.states.state import State


TAKEN = "taken from the model that it was loaded for"  # how the note of an architecture ends that no file told


class HasDims(Protocol):
    """A model, seen from here: something with `dims` and `card`."""

    @property
    def dims(self) -> Dims: ...  # noqa: D102
    @property
    def card(self) -> ModelCard: ...  # noqa: D102


def check_model(name: str, model: Any) -> HasDims:
    """Return `model` if it is one, seen from here; raises ArgError."""
    if not hasattr(model, "dims") or not hasattr(model, "card"):
        raise ArgError(f"{name}: need a model, got {show(type(model).__name__)}; open files with load_model")
    return model


def check_fits(state: State, model: HasDims, *, any_base: bool = False) -> None:
    """Raise MismatchError, saying what differs, unless `state` can be mounted on `model`; ArgError for other things."""
    if not hasattr(state, "wkv"):
        raise ArgError(f"state: need a State or None, got {show(type(state).__name__)}; open files with load_state")
    check_model("model", model)
    check_geometry(state.card, state.wkv.shape, model, any_base=any_base)


def check_geometry(card: StateCard, shape: Sequence[int], model: HasDims, *, any_base: bool = False) -> None:
    """Do what `check_fits` does from a card and a shape [L,H,V,K] alone."""
    dims, name = model.dims, show(card.name or "state")
    want, got = (dims.L, dims.H, dims.V, dims.K), tuple(shape)
    if card.arch and card.arch != dims.arch:
        made = ARCH_NAMES.get(card.arch, show(card.arch))
        if any(note.endswith((TAKEN, ASSUMED)) for note in card.notes):
            made += " (assumed when it was loaded for such a model; if that was wrong, load its first file again)"
        raise MismatchError(f"{name}: made for {made}, the model is {dims}; load the model that it was tuned on")
    if want != got:
        pairs = zip("LHVK", want, got, strict=True)
        differs = ", ".join(f"{letter}={have} (model {need})" for letter, need, have in pairs if need != have)
        raise MismatchError(f"{name}: {differs}; the model is {dims}: load the model that it was tuned on")
    if not any_base and not same_base(card.base, model.card.fingerprint):
        theirs, ours = show(card.base, 12), show(model.card.fingerprint, 12)
        raise MismatchError(
            f"{name}: its card names another base model ({theirs}, this is {ours});"
            " load that model, or mount it all the same after load_state(…, any_base=True)"
        )


def check_alike(a: State, b: State, what: str) -> None:
    """Raise MismatchError unless two states have one shape and, as far as their cards say, one base."""
    if a.wkv.shape != b.wkv.shape:
        raise MismatchError(
            f"{what}: shapes differ, {list(a.wkv.shape)} and {list(b.wkv.shape)}; take states of one model"
        )
    if a.card.arch and b.card.arch and a.card.arch != b.card.arch:
        raise MismatchError(
            f"{what}: architectures differ, {show(a.card.arch)} and {show(b.card.arch)}; take states of one model"
        )
    if not same_base(a.card.base, b.card.base):
        raise MismatchError(
            f"{what}: base models differ, {show(a.card.base, 12)} and {show(b.card.base, 12)}; take states of one model"
        )


def common_card(states: Sequence[State], recipe: str, parents: Sequence[str]) -> StateCard:
    """Return the card of something made from `states`: what they agree on, and how it was made."""
    cards = [state.card for state in states]
    template = cards[0].template
    return StateCard(
        arch=next((card.arch for card in cards if card.arch), ""),
        base=next((card.base for card in cards if card.base), ""),
        template=template if all(card.template == template for card in cards) else "",
        recipe=recipe,
        parents=tuple(dict.fromkeys(parents)),
    )
