"""What is known about a state or a model: its name, its base, how it was made; and whether two bases are the same."""

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING

from rwkvlab.errors import SchemaError, show

if TYPE_CHECKING:
    from rwkvlab.states.state import State

FINGERPRINT_TOLERANCE = 8  # bits of 256 that rounding to another dtype may flip


@dataclass(frozen=True)
class StateCard:
    """What is known about a state; every field may be empty, since most files in the wild say nothing.

    base is the fingerprint (64 hex digits) of the model that the state was made on, template the chat template that it
    was tuned under, recipe an expression or a sentence, parents the names that stand in it, source the file it came
    from and in which format, notes what the reader had to assume.
    """

    name: str = ""
    arch: str = ""
    base: str = ""
    template: str = ""
    recipe: str = ""
    parents: tuple[str, ...] = ()
    source: str = ""
    notes: tuple[str, ...] = ()

    def replace(self, **changes: object) -> "StateCard":
        """Return a card with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, object]:
        """Return the non-empty fields, ready for JSON in UTF-8: half of a surrogate pair is escaped."""
        found = ((key, value) for key, value in asdict(self).items() if value)
        return {key: list(map(_sound, v)) if isinstance(v, tuple) else _sound(v) for key, v in found}

    @classmethod
    def from_dict(cls, data: object) -> "StateCard":
        """Read what `to_dict` wrote; unknown keys are ignored. Raises SchemaError where a field has the wrong type."""
        if not isinstance(data, dict):
            raise SchemaError(f"card: need an object, got {type(data).__name__}")
        known: dict[str, object] = {}
        for field in fields(cls):
            if field.name not in data:
                continue
            value = data[field.name]
            if field.default == ():
                if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                    raise SchemaError(f"card.{field.name}: need a list of strings, got {show(value)}")
                known[field.name] = tuple(value)
            elif not isinstance(value, str):
                raise SchemaError(f"card.{field.name}: need a string, got {show(value)}")
            else:
                known[field.name] = value
        return cls(**known)  # type: ignore[arg-type]


def _sound(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def term_of(state: "State", *, product: bool = False) -> str:
    """Return how a state stands in a recipe: its name, or its own recipe, in brackets where it becomes a factor."""
    recipe = state.card.recipe
    if not state.card.parents:
        return state.card.name or "state"
    return f"({recipe})" if product and (" + " in recipe or " - " in recipe) else recipe


def parents_of(state: "State") -> tuple[str, ...]:
    """Return the names of the states that a state was made from; its own if it was not made."""
    return state.card.parents or (state.card.name or "state",)


@dataclass(frozen=True)
class ModelCard:
    """Who a model is: its name, its architecture ("x070" …) and its fingerprint, 64 hex digits.

    The fingerprint holds the signs of 256 seeded projections of the weights: equal up to 8 bits across dtypes and
    containers, about 128 bits apart for different models.
    """

    name: str
    arch: str
    fingerprint: str


def same_base(a: str, b: str) -> bool:
    """Tell whether two fingerprints belong to the same weights; an empty one matches everything."""
    if not a or not b:
        return True
    try:
        return (int(a, 16) ^ int(b, 16)).bit_count() <= FINGERPRINT_TOLERANCE
    except ValueError as error:
        raise SchemaError(f"fingerprint: need 64 hex digits, got {show(a)} and {show(b)}") from error
