"""Every error that rwkvlab raises, and `show`, the one way to print a string from outside."""

import unicodedata


class RwkvLabError(Exception):
    """The base of all errors of rwkvlab; the message names the input, what was wanted, what came and what to do."""


class LoadError(RwkvLabError, ValueError):
    """A file of weights or a state cannot be used."""


class FormatError(LoadError):
    """The bytes are not what a file of this format holds."""


class TruncatedError(FormatError):
    """The file ends too early."""


class UnsafeFileError(LoadError):
    """The file asks for code to be run, or for objects other than plain tensors."""


class LimitError(LoadError):
    """The file asks for more memory, members or depth than an honest one needs."""


class RoomError(LoadError, MemoryError):
    """There is not enough free memory for what the file holds."""


class SchemaError(LoadError):
    """The tensors in the file are not the ones that were wanted."""


class NonFiniteError(LoadError):
    """A tensor holds NaN or infinity."""


class MismatchError(LoadError):
    """A state, tokenizer or weight does not fit the model it was given with."""


class PathError(RwkvLabError, OSError):
    """A path cannot be read or written: missing, not a regular file, not allowed."""


class EmptyFileError(TruncatedError, PathError):
    """The file is there and has no bytes."""


class ConfigError(RwkvLabError, ValueError):
    """A configuration file is wrong."""


class VocabError(RwkvLabError, ValueError):
    """A vocabulary file is wrong."""


class PromptError(RwkvLabError, ValueError):
    """A prompt or a list of token ids cannot be read by the model."""


class ArgError(RwkvLabError, ValueError):
    """An argument is out of its range or of the wrong kind."""


class UnknownNameError(RwkvLabError, KeyError):
    """A mapping has no entry of this name."""

    __str__ = Exception.__str__  # KeyError would quote the message


class StateOpError(RwkvLabError, ValueError):
    """An operation on states makes no sense for these states."""


class TuneError(RwkvLabError, RuntimeError):
    """Tuning cannot start or go on."""


class ResumeError(TuneError):
    """A checkpoint belongs to another run."""


class DivergedError(TuneError):
    """The loss or a gradient is no longer finite; `state` is the best State before that, or None.

    states: of `tune_many`, those of all runs before that, by name.
    """

    state: object = None
    states: object = None


class UnfinishedError(TuneError, TimeoutError):
    """A run of tuning in a thread goes on for longer than it was waited for."""


class SaveError(RwkvLabError, OSError):
    """A file could not be written; what was there before is untouched."""


class WorkerError(RwkvLabError, RuntimeError):
    """A worker that was given a part of the work did not do it."""


class Cancelled(RwkvLabError, RuntimeError):
    """The work was stopped from outside."""


def show(value: object, limit: int = 80) -> str:
    """Return `value` quoted for a message: control and direction characters escaped, cut at `limit` characters.

    Never raises and never acts on a terminal; letters of every script stay readable.
    """
    try:
        text = value if isinstance(value, str) else str(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    cut = text[: limit + 1]
    if len(text) <= limit and text.isprintable():  # the usual case: no character of the categories C and Z but blanks
        return f"'{text}'"
    safe = "".join(c if unicodedata.category(c)[0] not in "CZ" or c == " " else _escape(c) for c in cut)
    return "'" + (safe[:limit] + "…" if len(text) > limit or len(safe) > limit else safe) + "'"


def printable(text: str) -> str:
    """Return `text` with everything that could act on a terminal made visible; line ends, tabs and emoji stay."""
    acting, kept = ("Cc", "Cf", "Cs", "Zl", "Zp"), "\n\t\u200c\u200d"
    return "".join(show(c)[1:-1] if unicodedata.category(c) in acting and c not in kept else c for c in text)


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
