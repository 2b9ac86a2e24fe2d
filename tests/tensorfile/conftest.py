"""Fixtures for the readers: `refused` holds a hostile file to the contract of errors."""

import os

import pytest

from rwkvlab.errors import FormatError, LoadError, TruncatedError
from rwkvlab.tensorfile import read_tensors

CANARY = "/tmp/rwkvlab-canary"  # hostile pickles try to make this folder
REMEDY = (
    "name the",
    "again",
    "save",
    "download",
    "give",
    "ask",
    "unpack",
    "need",
    "use ",
    "run ",
    "needs that",
    "writes far fewer",
)


def read_all(path):
    with read_tensors(path) as file:
        return [file.read(key) for key in file]


@pytest.fixture
def refused(tmp_path):
    """Check that a file of these bytes is refused by an error of this kind that names file, field and remedy."""

    def check(name, raw, error, words):
        path = tmp_path / name
        path.write_bytes(raw)
        with pytest.raises(LoadError) as caught:
            read_all(path)
        message = str(caught.value)
        assert type(caught.value) is error or (error is FormatError and type(caught.value) is TruncatedError)
        assert name[-6:] in message or "\\x1b" in message
        assert words in message
        assert any(word in message for word in REMEDY), message
        assert len(message) < 400
        assert message.isprintable()
        assert not os.path.exists(CANARY)

    return check
