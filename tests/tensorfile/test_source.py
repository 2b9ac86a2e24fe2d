"""What is no tensor file at all is refused by what it is, and nothing but a regular file is waited for."""

import errno
import io
import os
import pickle
import tarfile

import pytest
import torch

from rwkvlab.errors import EmptyFileError, FormatError, LimitError, PathError, TruncatedError, UnsafeFileError
from rwkvlab.tensorfile import read_tensors


class Canary:
    def __reduce__(self):
        return os.mkdir, ("/tmp/rwkvlab-canary",)


def saved(value, **kwargs):
    out = io.BytesIO()
    torch.save(value, out, **kwargs)
    return out.getvalue()


def tar():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        info = tarfile.TarInfo("storages")
        info.size = 24
        file.addfile(info, io.BytesIO(bytes(24)))
    return out.getvalue()


HOSTILE = {
    "canary.pth": (pickle.dumps(Canary(), 2), UnsafeFileError, "bare pickle"),
    "canary.safetensors": (pickle.dumps(Canary(), 2), FormatError, "is a pickle"),
    "text_pickle.pth": (b"cos\nsystem\n(S'true'\ntR.", UnsafeFileError, "bare pickle"),
    "legacy.pth": (saved({"w": torch.ones(2)}, _use_new_zipfile_serialization=False), UnsafeFileError, "re-save it"),
    "old.tar.pth": (tar(), FormatError, "tar archive"),
    "prefix.pth": (b"#!/bin/sh\n" + b"PK\x03\x04", FormatError, "no tensor file"),
    "html.pth": (b"<!DOCTYPE html><html><body>404</body></html>", FormatError, "HTML page"),
    "tiny_html.pth": (b"<html>", FormatError, "HTML page"),
    "a_byte.pth": (b"\xa1", TruncatedError, "has 1 bytes"),
    "lfs.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", FormatError, "git lfs pull"),
    "model.gguf": (b"GGUF\x03\0\0\0" + bytes(50), FormatError, "GGUF"),
    "model.pth.gz": (b"\x1f\x8b\x08\0" + bytes(50), FormatError, "gunzip"),
    "model.prefab": (b"\xa2\x64info\xa1\x67version\x62V7" + bytes(20), FormatError, "CBOR"),
    "config.json": (b'{"a": 1, "b": [1, 2, 3]}', FormatError, "JSON"),
    "array.npy": (b"\x93NUMPY\x01\0" + bytes(50), FormatError, "NumPy"),
    "zeros.pth": (bytes(5000), FormatError, "zeros"),
    "empty.pth": (b"", EmptyFileError, "empty"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_kind_name_and_remedy(refused, name):
    refused(name, *HOSTILE[name])


def test_a_suffix_that_says_what_a_file_is_and_an_archive_in_it_are_heeded(tmp_path):
    for name, kind, remedy in [
        ("a.bz2", "bzip2-compressed", "unpack it first (bunzip2)"),
        ("a.tbz2", "bzip2-compressed", "unpack it first"),
        ("m.tar.gz", "gzip-compressed", "unpack it first"),
        ("m.TGZ", "gzip-compressed", "unpack it first"),
        ("a.gz", "gzip-compressed", "unpack it first (gunzip)"),
        ("a.pth", "gzip-compressed, in spite of its name ending in '.pth'", "unpack it first (gunzip)"),
    ]:
        (tmp_path / name).write_bytes((b"BZh9" if "bzip2" in kind else b"\x1f\x8b\x08\0") + bytes(50))
        with pytest.raises(FormatError) as caught:
            read_tensors(tmp_path / name)
        assert str(caught.value) == f"'{name}': is {kind}; {remedy}"


def test_a_file_without_blocks_is_sparse_only_where_it_has_no_data(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"")
    os.truncate(path, 80 << 20)
    with pytest.raises(LimitError, match="holds 0 on disk"):
        read_tensors(path)

    def no_holes(*args):
        raise OSError(errno.EINVAL, "Invalid argument")

    for lseek in (no_holes, lambda *args: 0):  # of file systems that count no blocks
        monkeypatch.setattr(os, "lseek", lseek)
        with pytest.raises(FormatError, match="filled with zeros"):
            read_tensors(path)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    cases = {"pipe": "named pipe", "": "a folder", "missing": "no such file", "dangling": "link", "loop": "link"}
    for name, words in cases.items():
        with pytest.raises(PathError, match=words):
            read_tensors(tmp_path / name)
    with pytest.raises(PathError, match="a device"):
        read_tensors("/dev/zero")
    for wrong in (None, 5, "", "a\0b", b"bytes"):
        with pytest.raises(PathError, match="path"):
            read_tensors(wrong)
