"""The record of an experiment: a JSON-lines file of the parts that are done, from which a stopped run goes on."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from rwkvlab.errors import (
    ArgError,
    EmptyFileError,
    FormatError,
    LimitError,
    PathError,
    ResumeError,
    RwkvLabError,
    SaveError,
    show,
)
from rwkvlab.measure.experiments.identity import differences
from rwkvlab.measure.experiments.parts import Answered, Part
from rwkvlab.tensorfile import atomic_write
from rwkvlab.tensorfile.safetensors import MAX_MARKS, strict_json
from rwkvlab.tensorfile.source import AGAIN, Source, as_path

MAX_BYTES = 4 << 30
MAX_LINE = 64 << 20
OTHER = "give another path as resume=, or delete the file"
IN_USE = "is in use by another run; wait until that ends, or give another path as resume="
_SUM = re.compile(rb', "crc32": "([0-9a-f]{8})"\}\n')  # how every line ends; the sum is of all that stands before
# inside the texts: a reader counts these to keep clear of files made of millions of small things
_MARKS = {ord(mark): f"\\u{ord(mark):04x}" for mark in ":,[{"}

# (process, device, inode) of every record open here, and whose: a lock of the system is the process's, not a thread's
_TAKEN: dict[tuple[int, int, int], Record] = {}


class Record:
    """An open record file: `found` holds the parts that are in it, `add` appends one and waits until it is on disk."""

    def __init__(self, path: str | os.PathLike[str], run: Mapping[str, Any], parts: Sequence[Part]) -> None:
        """Open the record of a run, or make it; a last line that was cut off is dropped.

        run is what `identity` returned, the first line. Raises ResumeError where the file belongs to another run or is
        in use, FormatError with the line where it is no record, PathError, SaveError where it cannot be written, and
        ArgError for parts too large to be kept.
        """
        self.path = as_path(path)
        self.name = show(self.path.name)
        self.found: dict[int, Answered] = {}
        self._run, self._parts = run, parts
        largest = max(len(part.names) * (1 + sum(map(len, part.answers))) for part in parts)
        if largest > MAX_MARKS // 4:
            raise ArgError(
                f"batch: a part has {largest:,} answers, too many for a line of {self.name}; take a smaller one"
            )
        self._file, self._claim = -1, (0, 0, 0)
        try:
            self._file = self._open()
            self._size = self._read()
            os.ftruncate(self._file, self._size)
        except BaseException:
            self.close()
            raise

    def add(self, number: int, answered: Answered) -> None:
        """Append a part; SaveError where the system refuses, and what was there before stays."""
        said = ", ".join(json.dumps(text).translate(_MARKS) for text in answered.said)
        logprobs = json.dumps([[value.hex() for value in values] for values in answered.logprobs])
        line = _sealed(f'{{"part": {number}, "said": [{said}], "logprob": {logprobs}}}')
        if len(line) > MAX_LINE:
            raise LimitError(
                f"{self.name}: part {number} takes {len(line):,} bytes, at most {MAX_LINE:,}; take a smaller batch"
            )
        try:
            left = memoryview(line)
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            why = error.strerror or type(error).__name__
            raise SaveError(
                f"{self.name}: a part could not be added ({why}); make room there, and run it again"
            ) from error
        self._size += len(line)

    def close(self) -> None:
        """Close the file, which others may then go on with; a second call does nothing."""
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
            self._file = -1
        if _TAKEN.get(self._claim) is self:
            del _TAKEN[self._claim]

    def _open(self) -> int:
        if not os.path.lexists(self.path):
            line = _sealed(json.dumps(self._run))
            try:
                atomic_write(self.path, lambda file: file.write(line), overwrite=False)
            except SaveError:
                if not os.path.lexists(self.path):  # else another run made it at this moment
                    raise
        self._take()
        try:
            Source(self.path).close()  # says what is wrong with what is there
        except EmptyFileError as error:
            raise FormatError(f"{self.name}: is empty, no record of an experiment; {OTHER}") from error
        except PathError as error:
            raise PathError(f"{str(error).partition('; ')[0]}; {OTHER}") from error
        try:
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise PathError(f"{self.name}: {error.strerror}; make it writable, or {OTHER}") from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: forked workers would hold that too
        except OSError as error:  # some file systems have no locks
            if error.errno in (errno.EAGAIN, errno.EACCES):
                os.close(file)
                raise ResumeError(f"{self.name}: {IN_USE}") from error
        return file

    def _take(self) -> None:
        """Claim the file for this run, before it is opened: to close it again would end another run's lock on it."""
        try:
            found = os.stat(self.path)
        except OSError:
            return  # what follows says why
        self._claim = os.getpid(), found.st_dev, found.st_ino
        if _TAKEN.setdefault(self._claim, self) is not self:  # one step: no thread comes between
            raise ResumeError(f"{self.name}: {IN_USE}")

    def _read(self) -> int:
        """Read what is there into `found`; returns where the last whole line ends."""
        end = 0
        for number, raw in enumerate(self._lines(), 1):
            where = f"{self.name}: line {number}"
            try:
                data = strict_json(where, raw)
            except RwkvLabError as error:
                said = str(error).removesuffix(f"; {AGAIN}")
                raise type(error)(f"{said}; it is no record of an experiment, or damaged: {OTHER}") from error
            if number == 1:
                if data.get("rwkvlab") != self._run["rwkvlab"]:
                    raise FormatError(f"{where}: is no record of an experiment; {OTHER}")
                _check_sum(where, raw)
                if differ := differences(data, self._run):
                    raise ResumeError(f"{self.name}: belongs to another run ({'; '.join(differ)}); {OTHER}")
            else:
                _check_sum(where, raw)
                part, answered = _answered(where, data, self._parts)
                if self.found.get(part, answered) != answered:
                    raise FormatError(f"{where}: part {part} is there twice, with two results; {OTHER}")
                self.found[part] = answered
            end += len(raw)
        if not end:
            raise FormatError(f"{self.name}: is no record of an experiment; {OTHER}")
        return end

    def _lines(self) -> Iterator[bytes]:
        """Yield the whole lines; what stands behind the last line end was cut off while it was written."""
        size = os.fstat(self._file).st_size
        if size > MAX_BYTES:
            raise LimitError(f"{self.name}: {size:,} bytes, at most {MAX_BYTES:,} are read; {OTHER}")
        with open(self._file, "rb", closefd=False) as file:
            while (raw := file.readline(MAX_LINE + 1)).endswith(b"\n"):
                yield raw
        if len(raw) > MAX_LINE:
            raise LimitError(f"{self.name}: a line of more than {MAX_LINE:,} bytes; {OTHER}")


def _sealed(line: str) -> bytes:
    """Return a JSON object as a line with the CRC-32 of what stands before it as its last field."""
    raw = line.removesuffix("}").encode()
    return raw + f', "crc32": "{zlib.crc32(raw):08x}"}}\n'.encode()


def _check_sum(where: str, raw: bytes) -> None:
    found = _SUM.search(raw, max(0, len(raw) - 24))
    if found is None:
        raise FormatError(f"{where}: has no crc32 at its end, as older versions wrote it, or is damaged; {OTHER}")
    if int(found[1], 16) != zlib.crc32(raw[: found.start()]):
        raise FormatError(f"{where}: is damaged, its crc32 does not fit; {OTHER}")


def _answered(where: str, data: Mapping[str, Any], parts: Sequence[Part]) -> tuple[int, Answered]:
    """Return the number and the result of a part from its line; FormatError for what does not fit the part."""
    number = data.get("part")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(parts):
        raise FormatError(f"{where}: part: need a number below {len(parts)}, got {show(number, 20)}; {OTHER}")
    part = parts[number]
    said, logprobs = data.get("said"), data.get("logprob")
    written = str if part.max_tokens else type(None)
    if not isinstance(said, list) or len(said) != len(part.rows) or not all(isinstance(x, written) for x in said):
        raise FormatError(f"{where}: said: need the {len(part.rows)} texts of part {number}; {OTHER}")
    try:
        values = [tuple(float.fromhex(value) for value in row) for row in logprobs]  # type: ignore[union-attr]
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"{where}: logprob: need lists of numbers as float.hex writes them; {OTHER}") from error
    if [len(row) for row in values] != [len(answers) for _ in part.names for answers in part.answers]:
        raise FormatError(f"{where}: logprob: need one for each answer of part {number}; {OTHER}")
    if any(math.isnan(value) or value > 1e-3 for row in values for value in row):
        raise FormatError(f"{where}: logprob: need natural logarithms of probabilities, none above 0; {OTHER}")
    return number, Answered(tuple(said), tuple(values))
