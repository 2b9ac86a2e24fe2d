"""R's lazy-load databases: strings come out as they went in, and nothing else is read."""

import gzip
import struct
import zlib

import pytest

from rwkvlab.bundled.rdata import read_database
from rwkvlab.errors import FormatError


def number(*values):
    return struct.pack(f">{len(values)}i", *values)


def char(text):
    return number(0x40009, len(text.encode())) + text.encode()


def strings(*texts):
    return number(16, len(texts)) + b"".join(map(char, texts))


def named(names, *items):
    """A list with the attribute `names`, whose symbol is written out once."""
    return (
        number(0x213, len(items)) + b"".join(items) + number(0x402, 1) + char("names") + strings(*names) + number(254)
    )


def document(value, version=2):
    encoding = number(5) + b"UTF-8" if version == 3 else b""
    return b"X\n" + number(version, 0x40202, 0x20300) + encoding + value


def database(objects):
    """The index and the data of some objects, each a serialised value."""
    places, data = [], b""
    for value in objects.values():
        packed = number(len(value)) + zlib.compress(value)
        places.append(number(13, 2, len(data), len(packed)))
        data += packed
    again = number(0x402, 255 | 1 << 8) + strings("variables") + number(254)  # the symbol `names`, by reference
    return gzip.compress(document(number(0x213, 1) + named(objects, *places) + again, 3)), data


def test_the_strings_of_every_object_come_out():
    lines = ("CHAPTER I", "", "naïve — 汉")
    index, data = database({"emma": document(strings(*lines), 3), "persuasion": document(strings("a"))})
    assert read_database(index, data) == {"emma": list(lines), "persuasion": ["a"]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (document(number(3, 254, 254, 254)), "a value of type 3"),
        (document(number(13, 1, 7)), "is no vector of strings"),
        (document(strings("a")) + b"x", "1 bytes behind"),
        (document(strings("a"))[:-1], "needs"),
        (document(number(16, -1)), "a size of -1"),
        (document(strings("a"), 4), "version 4"),
        (b"A\n" + document(strings("a"))[2:], "not in XDR"),
        (document(number(255 | 5 << 8)), "reference 5 of 0"),
    ],
)
def test_anything_but_strings_is_refused(value, message):
    with pytest.raises(FormatError, match=message):
        read_database(*database({"emma": value}))


def test_a_broken_database_is_refused():
    index, data = database({"emma": document(strings("a" * 99))})
    with pytest.raises(FormatError, match="the file has"):
        read_database(index, data[:-1])
    with pytest.raises(FormatError, match="cannot be decompressed"):
        read_database(index, data[:4] + b"\0" * (len(data) - 4))
    with pytest.raises(FormatError, match="its head says otherwise"):
        read_database(index, number(7) + data[4:])
    with pytest.raises(FormatError, match="cannot be decompressed"):
        read_database(b"no gzip", data)
    with pytest.raises(FormatError, match="no list of variables"):
        read_database(gzip.compress(document(strings("a"))), data)
