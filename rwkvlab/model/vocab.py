"""Vocabularies of byte strings: the file format of RWKV, greedy encoding, decoding that streams."""

import ast
import codecs
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from rwkvlab.errors import PathError, PromptError, VocabError, show

END_OF_TEXT = 0
MAX_BYTES = 64 * 2**20
MAX_LINE = 1024
MAX_ID = 2**24  # nothing is sized by an id; this only catches nonsense
_LINE = re.compile(r"([0-9]{1,12}) (.+) ([0-9]{1,12})")


class Decoder(Protocol):
    """Turns tokens into text as they come; the pieces joined are `decode` of all of them."""

    def push(self, token: int) -> str: ...  # noqa: D102
    def flush(self) -> str: ...  # noqa: D102


class Tokenizer(Protocol):
    """What the model needs of a tokenizer. Id 0 is end of text: never encoded, decoded to nothing."""

    name: str
    vocab_size: int  # ids are 0 to vocab_size - 1

    def encode(self, text: str) -> list[int]: ...  # noqa: D102
    def decode(self, ids: Sequence[int]) -> str: ...  # noqa: D102
    def decoder(self) -> Decoder: ...  # noqa: D102
    def holes(self, vocab_size: int) -> list[int]: ...  # noqa: D102


class VocabTokenizer:
    """A vocabulary of byte strings: text is cut greedily, the longest token first, over its UTF-8 bytes."""

    def __init__(self, name: str, tokens: dict[int, bytes] | Callable[[], dict[int, bytes]], size: int = 0) -> None:
        """Take id -> bytes, or a function that reads it when first needed (then `size` is 1 + the largest id)."""
        self.name = name
        self._source = tokens
        self._tokens: dict[int, bytes] | None = None if callable(tokens) else dict(tokens)
        self._lookup: tuple[dict[bytes, int], dict[bytes, tuple[int, ...]]] | None = None
        self._holes: dict[int, list[int]] = {}
        self.vocab_size = size or max(self.tokens, default=0) + 1

    @property
    def tokens(self) -> dict[int, bytes]:
        """Id -> bytes, without id 0."""
        if self._tokens is None:
            self._tokens = self._source() if callable(self._source) else self._source
        return self._tokens

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; PromptError for a lone surrogate or a character outside the vocabulary."""
        return self._encode(utf8(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`; bytes that are not UTF-8 become U+FFFD. PromptError names an unknown id."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", "replace")

    def decoder(self) -> Decoder:
        """Return a fresh incremental decoder: a character cut by a token boundary comes out whole, and later."""
        return _BytesDecoder(self.bytes_of)

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes of one id; nothing for id 0."""
        if token == END_OF_TEXT:
            return b""
        try:
            return self.tokens[token]
        except (KeyError, TypeError):
            raise PromptError(f"token {show(token)}: not in the vocabulary {show(self.name)}") from None

    def holes(self, vocab_size: int) -> list[int]:
        """Return the ids below `vocab_size` that have no text (0 is not one): generation never samples them."""
        if vocab_size not in self._holes:
            self._holes[vocab_size] = [i for i in range(1, vocab_size) if i not in self.tokens]
        return self._holes[vocab_size]

    def _encode(self, data: bytes) -> list[int]:
        if self._lookup is None:
            sizes: dict[bytes, set[int]] = {}
            for token in self.tokens.values():
                sizes.setdefault(token[:2], set()).add(len(token))
            longest = {start: tuple(sorted(found, reverse=True)) for start, found in sizes.items()}
            self._lookup = {token: i for i, token in self.tokens.items()}, longest
        ids, by_start = self._lookup
        out, at, none = [], 0, ()
        while at < len(data):
            for size in by_start.get(data[at : at + 2], none):
                index = ids.get(data[at : at + size])
                if index is not None:
                    break
            else:
                size = 1
                index = ids.get(data[at : at + 1])
                if index is None:
                    raise PromptError(self._outside(data, at))
            out.append(index)
            at += size
        return out

    def _outside(self, data: bytes, at: int) -> str:
        position = len(data[:at].decode("utf-8", "ignore"))
        char = data.decode("utf-8")[position]
        return f"text: {show(char)} (character {position}) is not in the vocabulary {show(self.name)}"


def read_vocab(path: str | Path) -> dict[int, bytes]:
    """Return id -> bytes of a vocabulary file; id 0 (end of text) is never in it.

    Each line is an id, a Python string or bytes literal and the token's length in bytes. A vocabulary that holds
    single bytes above 0x7f is meant for any text and must hold all 256; one without them may cover some text only.
    Raises PathError where there is no such file, VocabError with the line number for anything else.
    """
    path = Path(path)
    name = show(path.name)
    try:
        if not path.is_file():
            raise PathError(f"{name}: vocabulary: no such regular file; give the path of a vocabulary in RWKV format")
        if path.stat().st_size > MAX_BYTES:
            raise VocabError(f"{name}: {path.stat().st_size} bytes, a vocabulary has at most {MAX_BYTES}")
        data = path.read_bytes()
    except PathError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PathError(f"{name}: vocabulary: cannot be read ({show(reason)})") from error
    return parse_vocab(data, name)


def parse_vocab(data: bytes, name: str) -> dict[int, bytes]:
    """Parse the bytes of a vocabulary file as `read_vocab` does; `name` stands in the messages."""
    tokens: dict[int, bytes] = {}
    line_of: dict[bytes, int] = {}
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an unknown escape is a mistake, not a warning
        for number, raw in enumerate(lines, 1):
            raw = raw.removesuffix(b"\r")
            if not raw and number == len(lines):
                break
            where = f"{name}: line {number}"
            index, token = _parse_line(raw, where)
            if index in tokens:
                raise VocabError(f"{where}: id {index} is there twice")
            if token in line_of:
                raise VocabError(f"{where}: token {show(token)} is already on line {line_of[token]}")
            tokens[index], line_of[token] = token, number
    if not tokens:
        raise VocabError(f"{name}: no tokens; need lines such as: 66 'A' 1")
    missing = [byte for byte in range(256) if bytes([byte]) not in line_of]
    if missing and any(len(token) == 1 and token[0] > 0x7F for token in line_of):
        raise VocabError(f"{name}: byte 0x{missing[0]:02x} has no token ({len(missing)} missing of 256)")
    return tokens


def _parse_line(raw: bytes, where: str) -> tuple[int, bytes]:
    if len(raw) > MAX_LINE:
        raise VocabError(f"{where}: {len(raw)} bytes long, at most {MAX_LINE} are allowed")
    try:
        match = _LINE.fullmatch(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise VocabError(f"{where}: not UTF-8 at byte {error.start} of the line; save the file as UTF-8") from error
    if match is None:
        raise VocabError(f"{where}: need `id 'token' length`, got {show(raw.decode('utf-8'), 40)}")
    index, size = int(match[1]), int(match[3])
    if not 0 < index <= MAX_ID:
        raise VocabError(f"{where}: id {index}: need 1 to {MAX_ID} (0 is end of text)")
    try:
        value = ast.literal_eval(match[2])
        token = value.encode("utf-8") if isinstance(value, str) else value
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError, Warning) as error:
        raise VocabError(f"{where}: id {index}: not a plain string or bytes literal: {show(match[2], 40)}") from error
    if not isinstance(token, bytes):
        raise VocabError(f"{where}: id {index}: need a string or bytes, got {type(token).__name__}")
    if not token or len(token) != size:
        raise VocabError(f"{where}: id {index}: the token has {len(token)} bytes, the line says {size}")
    return index, token


def utf8(text: str) -> bytes:
    """Return the UTF-8 of `text`; PromptError gives the position of a lone surrogate."""
    if not isinstance(text, str):
        raise PromptError(f"text: need a str, got {type(text).__name__}")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        position = error.start
        raise PromptError(f"text: lone surrogate U+{ord(text[position]):04X} at character {position}") from None


class _BytesDecoder:
    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        self._bytes_of = bytes_of
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self._utf8.decode(self._bytes_of(token))

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)
