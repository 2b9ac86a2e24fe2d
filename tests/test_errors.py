"""Every error of ours has one base and a builtin beside it, and `show` makes any text safe to print."""

import inspect
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwkvlab import errors
from rwkvlab.errors import RwkvLabError, show

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
BUILTINS = {
    "LoadError": ValueError,
    "FormatError": ValueError,
    "PathError": OSError,
    "RoomError": MemoryError,
    "SaveError": OSError,
    "ConfigError": ValueError,
    "UnknownNameError": KeyError,
    "TuneError": RuntimeError,
    "Cancelled": RuntimeError,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_error_can_be_caught_as_ours_and_as_a_builtin(kind):
    assert issubclass(kind, RwkvLabError)
    builtin = [
        base
        for base in kind.__mro__
        if base.__module__ == "builtins" and base not in (Exception, BaseException, object)
    ]
    assert builtin or kind is RwkvLabError
    assert issubclass(kind, BUILTINS.get(kind.__name__, Exception))
    assert str(kind("file: got X, need Y; do Z")) == "file: got X, need Y; do Z"
    assert kind.__doc__


@given(st.text(max_size=300))
def test_what_is_shown_is_printable_short_and_one_line(text):
    shown = show(text)
    assert shown.isprintable()
    assert len(shown) <= 83
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in shown)


def test_letters_of_every_script_stay_and_the_rest_is_escaped():
    assert show("文言文 é 🎉") == "'文言文 é 🎉'"
    assert show("\x1b[2J\n\u202e\ud800\u00a0") == "'\\x1b[2J\\x0a\\u202e\\ud800\\xa0'"
    assert show("x" * 100, 10) == "'" + "x" * 10 + "…'"
    assert show(5) == "'5'"


def test_an_object_that_cannot_be_printed_is_named_by_its_kind():
    class Bad:
        def __str__(self):
            raise RuntimeError("no")

    assert show(Bad()) == "'<Bad>'"
