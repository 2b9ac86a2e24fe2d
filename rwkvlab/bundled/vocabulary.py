r"""The vocabulary of the bundled world models: `python -m rwkvlab.bundled.vocabulary --data DIR` writes DIR/vocab.txt.

Id 0 is end of text and in no line, 1 to 256 are the bytes (byte + 1), then come pieces that StyleWorld is written in,
then Chinese characters and English pieces in the order of what each spares, in tokens of text that is drawn from the
four sources in equal parts. No token of two or more characters is all small ASCII letters, so that the queries of the
functions are read letter by letter; an English word has its leading space, or a capital. No token spans the end of a
line and what stands before it, nor a space and a Chinese character: a prompt and its answer are cut as one text is.
"""

from __future__ import annotations

import argparse
import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from rwkvlab.bundled.corpus import SOURCES, read_source
from rwkvlab.model.vocab import VocabTokenizer
from rwkvlab.tasks.builtin import MICRO_FUNCTIONS
from rwkvlab.tasks.cities import CITIES, KINDS
from rwkvlab.tasks.styleworld import (
    ABSENT_STYLE,
    LANGUAGES,
    PHRASINGS,
    STYLE_NAMES,
    Combination,
    answer,
    question,
    style_tag,
)
from rwkvlab.tasks.world_phrases import JSON_KEYS
from rwkvlab.tensorfile import atomic_write

SIZE = 3584  # ids, 0 and the 256 bytes among them
CHARACTERS = 2.7  # of English text in a token, about
LONGEST = 16  # characters of a piece
SEEN = 20  # times, of a piece that is worth a token
_PIECE = re.compile("'[a-z]+| ?[A-Za-z]+| ?[!-@\\[-`{-~]+")
_HAN = re.compile("[\u4e00-\u9fff，。、？！；：]")


def build(folder: Path) -> list[bytes]:
    """Return the tokens of ids 1, 2, … from the sources that `rwkvlab.bundled.corpus` wrote to a folder."""
    tokens = dict.fromkeys(bytes([byte]) for byte in range(256))
    tokens |= dict.fromkeys(piece.encode() for piece in world_pieces())
    texts = {source: "\n".join(read_source(folder, source, held_out=False)) for source in SOURCES}
    chinese, english = texts["tang"] + texts["song"], texts["austen"] + texts["shakespeare"]
    weight = len(english) / CHARACTERS / len(chinese)
    gains = [(2 * weight * count, char) for char, count in Counter(_HAN.findall(chinese)).items()]
    room = SIZE - 1 - len(tokens)
    gains += _english(Counter(_PIECE.findall(english)), {token.decode() for token in list(tokens)[256:]}, room)
    for _, piece in sorted(gains, key=lambda row: (-row[0], row[1])):
        if len(tokens) < SIZE - 1:
            tokens.setdefault(piece.encode())
    return list(tokens)


def world_pieces() -> list[str]:
    """Return what has a token of its own in StyleWorld, tags and functions: every name, code, flag, word and mark."""
    pieces = ["\n\n", "User:", "Assistant:", *"，。、？！；：", " ✈️", " 🌍", " 💰", " 💬"]
    pieces += [f"{tag}:" for tag in (*MICRO_FUNCTIONS, *SOURCES)] + [style_tag(style)[:-1] for style in STYLE_NAMES]
    for keys in JSON_KEYS.values():
        route = len(keys) == 2
        pieces += [f' {{"{keys[0]}": {"" if route else "["}"', f'", "{keys[1]}": "' if route else '", "']
    pieces += ['"}', '"]}', " (", ")."]
    for city in CITIES.values():
        pieces += [f" {city.name[0]}", f" {city.airport}", city.airport, f" {city.flag}"]
        pieces += [city.name[1], city.country[1], city.language[1], city.currency[1]]
    texts = list(_world_texts())
    found = (piece for text in texts for piece in [*_PIECE.findall(text), *_HAN.findall(text)])
    words = sorted({piece for piece in found if re.fullmatch(" [A-Za-z]+|[A-Z][A-Za-z]*|[^!-~]", piece)})
    every = dict.fromkeys([*(chr(byte) for byte in range(128)), *pieces, *words])
    tokenizer = VocabTokenizer("pieces", {i: piece.encode() for i, piece in enumerate(every, start=1)})
    used = {tokenizer.decode([index]) for text in texts for index in tokenizer.encode(text)}
    return list(dict.fromkeys([*pieces, *(word for word in words if word in used)]))


def _world_texts() -> Iterator[str]:
    """Yield each phrase with each city in it, once as a and once as b, as it stands in a text."""
    keys = list(CITIES)
    for a, b in zip(keys, keys[1:] + keys[:1], strict=True):
        for kind in KINDS:
            c = Combination(kind, a, b)
            for language in LANGUAGES:
                yield from (" " + question(c, language, phrasing) for phrasing in range(PHRASINGS))
                yield from (" " + answer(c, style, language) for style in (*STYLE_NAMES, ABSENT_STYLE))


def _english(words: Counter[str], have: set[str], room: int) -> list[tuple[float, str]]:
    """Return the `room` beginnings of words that spare most, with the tokens each spares, chosen one after the other.

    A word is cut as its longest beginning among the tokens, and then letter by letter.
    """
    words = Counter({word: count for word, count in words.items() if count >= 2})
    inside = defaultdict[str, list[str]](list)
    for word in words:
        for size in range(2, min(len(word), LONGEST) + 1):
            if not re.fullmatch("[a-z]+", word[:size]):
                inside[word[:size]].append(word)
    size_of = dict.fromkeys(words, 1)
    for piece in have & inside.keys():
        for word in inside[piece]:
            size_of[word] = max(size_of[word], len(piece))

    def gain(piece: str) -> int:
        return sum(words[word] * max(0, len(piece) - size_of[word]) for word in inside[piece])

    heap = [(-gain(piece), piece) for piece, of in inside.items() if sum(words[word] for word in of) >= SEEN]
    heapq.heapify(heap)
    chosen: list[tuple[float, str]] = []
    while heap and len(chosen) < room:
        old, piece = heapq.heappop(heap)
        now = gain(piece)
        if now < -old:  # others have taken from it since: it waits for its turn again
            heapq.heappush(heap, (-now, piece))
        elif now:
            chosen.append((float(now), piece))
            for word in inside[piece]:
                size_of[word] = max(size_of[word], len(piece))
    return chosen


def vocabulary_file(tokens: list[bytes]) -> str:
    """Return the file in RWKV's format: an id, a Python literal, the number of bytes."""
    lines = []
    for index, token in enumerate(tokens, start=1):
        try:
            literal = repr(token.decode("utf-8"))
        except UnicodeDecodeError:
            literal = repr(token)
        lines.append(f"{index} {literal} {len(token)}\n")
    return "".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Write DIR/vocab.txt."""
    parser = argparse.ArgumentParser(prog="python -m rwkvlab.bundled.vocabulary", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args(argv).data
    text = vocabulary_file(build(folder))
    atomic_write(folder / "vocab.txt", lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
