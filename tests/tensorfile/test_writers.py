"""What is written is what torch and safetensors read, and what we read back."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from rwkvlab.errors import SaveError
from rwkvlab.tensorfile import read_tensors, tensor_digest, write_pth, write_safetensors


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    return {
        "b": torch.randn(3, 4).t(),
        "a": torch.randn(5).bfloat16(),
        "half": torch.tensor([1.0, -0.0]).half(),
        "wide": torch.randn(2, 2).double(),
        "文": torch.randn(100)[10:12],
        "one": torch.arange(4.0)[::2][:1],
        "empty": torch.empty(0, 2),
        "grad": torch.randn(2, requires_grad=True),
    }


def equal(a, b):
    return a.dtype == b.dtype and torch.equal(a.detach(), b.detach())


def test_safetensors_reads_what_we_write(tmp_path, tensors):
    path = write_safetensors(tmp_path / "a.safetensors", tensors, {"card": '{"名": 1}'})
    theirs = load_file(path)
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"card": '{"名": 1}'}
    with read_tensors(path) as ours:
        assert all(equal(theirs[key], tensors[key]) and equal(ours.read(key), tensors[key]) for key in tensors)


def test_torch_reads_what_we_write(tmp_path, tensors):
    path = write_pth(tmp_path / "a.pth", tensors)
    theirs = torch.load(path, weights_only=True)
    assert list(theirs) == list(tensors)
    with read_tensors(path) as ours:
        assert all(equal(theirs[key], tensors[key]) and equal(ours.read(key), tensors[key]) for key in tensors)
    assert not any(value.requires_grad for value in theirs.values())
    assert theirs["文"].untyped_storage().nbytes() == 8


@pytest.mark.parametrize("write", [write_pth, write_safetensors])
def test_what_cannot_be_written_is_named_and_nothing_is_left(tmp_path, write):
    for wrong, words in (
        ({}, "no tensors"),
        ({"w": torch.ones(2, dtype=torch.int64)}, "'w': got torch.int64"),
        ({"w": [1.0]}, "'w': got list"),
        ({3: torch.ones(2)}, "'3'"),
        ({"__metadata__": torch.ones(2)}, "__metadata__"),
        ({"\ud800": torch.ones(2)}, "Unicode"),
    ):
        with pytest.raises(SaveError, match=words):
            write(tmp_path / "a.pth", wrong)
    assert not list(tmp_path.iterdir())


def test_metadata_must_be_text(tmp_path):
    with pytest.raises(SaveError, match="metadata"):
        write_safetensors(tmp_path / "a.safetensors", {"w": torch.ones(1)}, {"a": 1})


def test_the_digest_tells_names_shapes_dtypes_and_bits_apart():
    base = {"w": torch.arange(6.0)}
    others = [
        {"v": torch.arange(6.0)},
        {"w": torch.arange(6.0).view(2, 3)},
        {"w": torch.arange(6.0).double()},
        {"w": torch.tensor([0, 1, 2, 3, 4, 5.0000005])},
        {"w": torch.tensor([-0.0, 1, 2, 3, 4, 5])},
    ]
    digests = [tensor_digest(tensors) for tensors in (base, *others)]
    assert len(set(digests)) == len(digests)
    assert tensor_digest({"w": torch.arange(12.0)[::2] / 2}) == digests[0]
