"""Puts this folder on the path, for what its tests share; files there need not last, and no warning may act either."""

import os
import sys
import warnings
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from payloads import acting


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where the folders of this module's texts are made."""
    return tmp_path_factory.mktemp("escapes")


@pytest.fixture(autouse=True)
def warned(monkeypatch):
    """The warnings of a test, as a terminal would show them: nothing in them acts."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # these files need not last
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield caught
    assert not [str(warning.message)[:200] for warning in caught if acting(str(warning.message))]
