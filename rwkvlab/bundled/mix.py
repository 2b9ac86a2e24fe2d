"""What the bundled world models are trained on: batches of functions, StyleWorld and real text.

`python -m rwkvlab.bundled.mix --data DIR` encodes DIR's texts by DIR/vocab.txt into DIR/*.npy, so that they load fast.
"""

from __future__ import annotations

import argparse
import random
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rwkvlab.bundled import micro_data
from rwkvlab.bundled.corpus import SOURCES, read_source
from rwkvlab.bundled.micro_data import GUESSED, LEAN, TAGGED, Batch
from rwkvlab.bundled.world_pool import MARKED, WorldPool, fill_pool
from rwkvlab.errors import ArgError, FormatError, show
from rwkvlab.model.vocab import VocabTokenizer, read_vocab
from rwkvlab.shapes import check_range
from rwkvlab.tasks.builtin import MICRO_FUNCTIONS
from rwkvlab.tasks.styleworld import LANGUAGES, PHRASINGS, STYLE_NAMES, combinations
from rwkvlab.tensorfile import atomic_write

KINDS = ("functions", "world", "text")
MOST = 3  # pairs or turns of a document
PARAGRAPH = "\n\n"
Rows = tuple[NDArray, NDArray]  # ids [rows, length] and their weights


def source_tag(source: str) -> str:
    """Return the line, with its end, that names a source before a text."""
    return f"{source}:\n"


class Mix:
    """Draws batches of one kind: `draw` is a pure function of its arguments, of the texts and of the vocabulary."""

    def __init__(self, folder: str | Path, vocab: str | Path) -> None:
        """Read the sources that `rwkvlab.bundled.corpus` wrote to a folder; ids of a vocabulary file.

        Takes some ten seconds, or one where the arrays were written before (see `save`).
        """
        self.folder, vocab = Path(folder), Path(vocab)
        self.tokenizer = VocabTokenizer(vocab.name, read_vocab(vocab))
        self._mark = f"{zlib.crc32(vocab.read_bytes()):08x}"
        encode = self.tokenizer.encode
        (self._apart,) = encode(PARAGRAPH)
        self._texts = {(source, False): self._encoded(source) for source in SOURCES}
        self._starts = dict[tuple[str, bool], NDArray]()
        self._worlds = {False: self._pool()}
        self._tags = np.array([encode(source_tag(source)) for source in SOURCES])  # [sources, 2]
        tags = [encode(f"{name}:") for name in MICRO_FUNCTIONS]
        bytes_of = [encode(chr(byte)) if byte < 128 else [0] for byte in range(256)]
        self._ids = np.array([[0], *bytes_of, *tags])[:, 0]  # by the id of the micro vocabulary

    def draw(self, seed: int, step: int, kind: str, rows: int, length: int, *, held_out: bool = False) -> Batch:
        """Return `rows` documents of a kind as tokens, targets and weights, each [rows, length].

        "functions": 1 to 3 pairs of one function, "world": 1 to 3 turns in one style and language, each as many as fit
        and padded with weight 0 behind; "text": a window of one source from the beginning of a paragraph, full.
        Weights are 0.1 for what nobody can know (tags, queries, questions, the end of a talk), else 1. ids are int64.
        held_out: made of the queries, combinations and documents that are kept out of training. Raises ArgError.
        """
        if kind not in KINDS:
            raise ArgError(f"kind: need one of {', '.join(KINDS)}, got {show(kind)}")
        for name, value, low in (("seed", seed, 0), ("step", step, 0), ("rows", rows, 1), ("length", length, 16)):
            check_range(name, value, low, 2**31 - 1, whole=True)
        rng = np.random.default_rng([seed, step, KINDS.index(kind), int(held_out)])
        make = {"functions": self._functions, "world": self._documents, "text": self._windows}[kind]
        ids, weights = make(rng, rows, length + 1, held_out)
        tokens = torch.from_numpy(ids.astype(np.int64))
        return Batch(tokens[:, :-1], tokens[:, 1:], torch.from_numpy(weights[:, 1:]))

    def _functions(self, rng: np.random.Generator, rows: int, length: int, held_out: bool) -> Rows:
        ids, weights = _blank(rows, length)
        local = random.Random(int(rng.integers(2**62)))
        for row in range(rows):
            pairs = local.randint(1, MOST)
            tokens, weight = micro_data.document(local, pairs, held_out=held_out)
            while len(tokens) > length and pairs > 1:
                pairs -= 1
                tokens, weight = micro_data.document(local, pairs, held_out=held_out)
            size = min(len(tokens), length)
            ids[row, :size] = self._ids[tokens[:size]]
            weights[row, :size] = weight[:size]
        return ids, weights

    def _documents(self, rng: np.random.Generator, rows: int, length: int, held_out: bool) -> Rows:
        if held_out not in self._worlds:
            self._worlds[held_out] = fill_pool(self.tokenizer.encode, combinations(held_out=held_out))
        pool, styles = self._worlds[held_out], len(STYLE_NAMES)
        c = rng.integers(len(pool.city), size=(rows, MOST))
        language = rng.integers(len(LANGUAGES), size=(rows, 1))
        tagged = rng.random(rows) < TAGGED
        lean = ~tagged & (rng.random(rows) < LEAN)
        style = np.where(lean, pool.city[c[:, 0]] % styles, rng.integers(styles, size=rows))[:, None]
        phrasing = rng.integers(PHRASINGS, size=(rows, MOST))
        steps = np.cumsum([MARKED[name] for name in LANGUAGES], axis=1)[language[:, 0]]  # [rows, marks]
        mark = (rng.random((rows, MOST, 1)) >= steps[:, None, :-1]).sum(-1)
        asked = pool.questions + (c * len(LANGUAGES) + language) * PHRASINGS + phrasing
        said = pool.answers + (c * len(LANGUAGES) + language) * styles + style
        turns = np.stack([asked, pool.marks + mark, np.full_like(asked, pool.between), said], axis=2)  # [rows, MOST, 4]
        opening = np.where(tagged, style[:, 0], pool.end + 1)
        sizes = np.cumsum(pool.size[turns].sum(2), axis=1) + pool.size[opening][:, None] + 1
        fits = (sizes <= length) & (np.arange(MOST) < rng.integers(1, MOST + 1, size=(rows, 1)))
        fits[:, 0] = True
        turns[~fits] = pool.end + 1
        pieces = np.column_stack([opening, turns.reshape(rows, -1), np.full(rows, pool.end)])
        return _laid(pool, pieces, np.array([GUESSED, *[GUESSED, GUESSED, GUESSED, 1.0] * MOST, GUESSED]), length)

    def _windows(self, rng: np.random.Generator, rows: int, length: int, held_out: bool) -> Rows:
        ids, weights = _blank(rows, length)
        sources, tagged = rng.integers(len(SOURCES), size=rows), rng.random(rows) < TAGGED
        for row, source in enumerate(sources):
            text, starts = self._text(SOURCES[source], held_out)
            lead = self._tags.shape[1] if tagged[row] else 0
            last = np.searchsorted(starts, len(text) - length)  # so many windows are full
            if not last:
                raise ArgError(f"length: {length - 1} tokens: longer than the source {SOURCES[source]}")
            at = starts[rng.integers(last)]
            ids[row, :lead] = self._tags[source, :lead]
            ids[row, lead:] = text[at : at + length - lead]
            weights[row, :lead], weights[row, lead:] = GUESSED, 1.0
        return ids, weights

    def save(self) -> None:
        """Write what was encoded to the folder, under names that hold a checksum of the vocabulary."""
        arrays = {source: self._texts[source, False] for source in SOURCES}
        arrays |= {f"world-{name}": array for name, array in self._worlds[False]._asdict().items()}
        for name, array in arrays.items():
            atomic_write(self._path(name), lambda file, array=array: np.save(file, array))  # type: ignore[misc]

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.{self._mark}.npy"

    def _text(self, source: str, held_out: bool) -> tuple[NDArray, NDArray]:
        """Return the ids of a source and where its paragraphs begin."""
        key = source, held_out
        if key not in self._texts:
            self._texts[key] = self._encoded(source, held_out)
        if key not in self._starts:
            self._starts[key] = np.flatnonzero(self._texts[key][:-1] == self._apart) + 1
        return self._texts[key], self._starts[key]

    def _encoded(self, source: str, held_out: bool = False) -> NDArray:
        if self._path(source).is_file() and not held_out:
            return self._load(source)
        documents = read_source(self.folder, source, held_out=held_out)
        return np.array(self.tokenizer.encode(PARAGRAPH + PARAGRAPH.join(documents)), np.uint16)

    def _pool(self) -> WorldPool:
        names = [f"world-{name}" for name in WorldPool._fields]
        if all(self._path(name).is_file() for name in names):
            return WorldPool(*map(self._load, names))
        return fill_pool(self.tokenizer.encode)

    def _load(self, name: str) -> NDArray:
        try:
            return np.load(self._path(name))
        except (ValueError, EOFError, OSError) as error:
            raise FormatError(f"{self._path(name).name}: no array ({show(error)}); delete it and run again") from error


def _blank(rows: int, length: int) -> Rows:
    return np.zeros((rows, length), np.int64), np.zeros((rows, length), np.float32)


def _laid(pool: WorldPool, pieces: NDArray, weight: NDArray, length: int) -> Rows:
    """Lay the pieces [rows, n] of each row one after the other, cut at `length`; weight [n] of each piece's tokens."""
    ids, weights = _blank(len(pieces), length)
    sizes = pool.size[pieces]
    begin = np.cumsum(sizes, axis=1) - sizes + np.arange(len(pieces))[:, None] * length  # in the flat batch
    flat, total = sizes.ravel(), int(sizes.sum())
    inside = np.arange(total) - np.repeat(np.cumsum(flat) - flat, flat)
    to = np.repeat(begin.ravel(), flat) + inside
    kept = to < np.repeat(np.arange(1, len(pieces) + 1) * length, sizes.sum(1))
    ids.ravel()[to[kept]] = pool.ids[(np.repeat(pool.start[pieces].ravel(), flat) + inside)[kept]]
    weights.ravel()[to[kept]] = np.repeat(np.broadcast_to(weight, sizes.shape).ravel(), flat)[kept]
    return ids, weights


def main(argv: list[str] | None = None) -> None:
    """Encode the texts of a folder and write the arrays there."""
    parser = argparse.ArgumentParser(prog="python -m rwkvlab.bundled.mix", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args(argv).data
    Mix(folder, folder / "vocab.txt").save()


if __name__ == "__main__":
    main()
