"""The scripts and style sheets of the widgets: a text is only ever set as text, and nothing is asked for or run."""

import re
from pathlib import Path

import pytest

import rwkvlab as lab

HERE = Path(lab.__file__).parent / "widgets"
SCRIPTS = sorted(HERE.rglob("*.js"))
# what makes elements or programs of texts, and what asks for anything outside the page
FORBIDDEN = r"""innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|\bFunction\(|srcdoc
|DOMParser
|createContextualFragment|setHTML|import\s*\(|\bimport\b[^;]*from|https?:|//\w+\.\w+/|fetch\(|XMLHttpRequest|WebSocket
|sendBeacon|setTimeout\(\s*["'`]|setInterval\(\s*["'`]|javascript:|setAttribute\(\s*["'`]on|\.on\w+\s*=[^=]
|createElement\(\s*["'`](script|iframe|object|embed|link)""".replace("\n", "")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_elements_of_texts_or_asks_for_anything(path):
    code = re.sub(r"^\s*//.*$", "", path.read_text("utf-8"), flags=re.MULTILINE)
    assert not re.findall(FORBIDDEN, code), path.name


def test_the_forbidden_is_found():
    for bad in (
        *("a.innerHTML = x", "el.insertAdjacentHTML('a', b)", "eval(x)", "new Function(x)", "import('https://a')"),
        *("import a from 'b'", "fetch(x)", "a.onclick = b", "setAttribute('onclick', x)", "createElement('script')"),
    ):
        assert re.search(FORBIDDEN, bad), bad
    assert SCRIPTS and not any(re.search(r"url\(|@import", path.read_text("utf-8")) for path in HERE.rglob("*.css"))
