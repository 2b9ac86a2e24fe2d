"""Hostile files beside honest ones are listed and described, never raise there, and nothing in them acts when shown."""

import json
import re
import warnings

import pytest
from builders import heads, saved
from test_hostile_files import CASES

from rwkvlab.errors import printable
from rwkvlab.model.inspect import inspect_file
from rwkvlab.states.shelf import Shelf

MARKUP = re.compile(r"<\s*(script|img|svg|iframe|object|embed|link|meta)\b", re.IGNORECASE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All hostile files that are made of bytes, under the names of a state, and one honest state."""
    place = tmp_path_factory.mktemp("hostile")
    for index, case in enumerate(CASES):
        if isinstance(case.make, bytes) or case.row in (31, 34, 35, 36, 38, 39):
            made = case.make if isinstance(case.make, bytes) else case.make(place)
            suffix = case.name[case.name.rfind(".") :][:12]
            name = f"{index:04}-{case.name.removesuffix(suffix)[:60]}{suffix}"
            if isinstance(made, bytes) and len(made) < 1 << 20:
                (place / name).write_bytes(made)
    (place / "honest.pth").write_bytes(saved(heads()))
    return place


def harmless(text):
    return text == printable(text)


@pytest.mark.timeout(120)
def test_a_shelf_of_hostile_files_lists_them_with_reasons(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shelf = Shelf(folder).check()
    assert len(shelf) + len(shelf.unreadable) > 400
    assert len(shelf.unreadable) > 350
    assert "honest" in shelf
    assert all(reason and len(reason) <= 400 and reason.isprintable() for reason in shelf.unreadable.values())
    assert harmless(repr(shelf))
    assert harmless(shelf._repr_html_()) and not MARKUP.search(shelf._repr_html_())


@pytest.mark.timeout(180)
def test_every_hostile_file_is_described_and_none_raises(folder):
    kinds, count = set(), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted(folder.iterdir()):
            report = inspect_file(path)
            kinds.add(report.kind)
            count += 1
            assert harmless(repr(report)), path
            page = report._repr_html_()
            assert harmless(page) and not MARKUP.search(page), path
            json.dumps(report.to_dict(), allow_nan=False)
    assert count > 500
    assert len(kinds) > 10, kinds
