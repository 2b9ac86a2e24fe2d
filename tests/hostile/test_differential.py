"""Whatever torch or safetensors read from a file, we read the same bits of it, on valid and on mutated files."""

import contextlib
import itertools
import random
import warnings
from collections import OrderedDict

import builders as b
import mutate
import pytest
import torch
from corpus import read_all
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rwkvlab.errors import LoadError
from rwkvlab.tensorfile import read_tensors

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def own(tensor):
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def bits(tensor):
    return own(tensor).reshape(-1).view(torch.uint8)


def same(ours, theirs):
    """Hold our tensors to theirs: names in their order, dtypes, shapes, bits."""
    if isinstance(theirs, list):
        theirs = {str(index): tensor for index, tensor in enumerate(theirs)}
    assert list(ours) == list(theirs)
    for key, tensor in ours.items():
        assert tensor.dtype == theirs[key].dtype and tensor.shape == theirs[key].shape, key
        assert torch.equal(bits(tensor), bits(theirs[key])), key


def noise(rng, shape, dtype):
    """A tensor of random bits: NaN of every kind, infinities, subnormals."""
    size = int(torch.tensor(shape).prod()) * dtype.itemsize
    if not size:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(rng.randbytes(size)), dtype=dtype).reshape(shape)


def view(rng, tensor):
    """A view of a tensor, as people save them."""
    match rng.randrange(6):
        case 0:
            return tensor.transpose(0, -1) if tensor.dim() else tensor
        case 1:
            return tensor[1:] if tensor.dim() and len(tensor) > 1 else tensor
        case 2:
            return tensor[..., ::2] if tensor.dim() else tensor
        case 3:
            return tensor.unsqueeze(rng.randrange(tensor.dim() + 1))
        case 4:
            return tensor.reshape(-1)
        case _:
            return torch.nn.Parameter(tensor, requires_grad=rng.random() < 0.5)


def checkpoint(rng):
    """A dict or list of tensors of any shapes, dtypes and views; some share their bytes, as halves of one."""
    tensors = OrderedDict() if rng.random() < 0.5 else {}
    for index in range(rng.randrange(1, 7)):
        shape = [rng.choice((1, 1, 2, 3, 5, 8, 0)) for _ in range(rng.randrange(4))]
        name = rng.choice(("w", "blocks.", "文", "a b", "\n")) + str(index)
        tensors[name] = view(rng, noise(rng, shape, rng.choice(FLOATING)))
    if rng.random() < 0.3:
        whole = noise(rng, (4, 6), rng.choice(FLOATING))
        tensors |= {"low": whole[:2], "high": whole[2:]}
    return list(tensors.values()) if rng.random() < 0.2 else tensors


def valid(tmp_path, count, seed):
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        tensors, path = checkpoint(rng), tmp_path / "a"
        torch.save(tensors, path, pickle_protocol=rng.choice((2, 2, 3)))
        same(read_all(path), torch.load(path, weights_only=True))
        named = tensors if isinstance(tensors, dict) else {str(i): tensor for i, tensor in enumerate(tensors)}
        save_file({key: own(tensor) for key, tensor in named.items()}, path, {"format": "pt"})
        theirs, ours = load_file(path), read_all(path)
        same(dict(sorted(ours.items())), dict(sorted(theirs.items())))


def mutated(tmp_path, count, seed):
    """Read mutated files; returns how many we read, and how many of these the others read too."""
    seeds, both, ours_alone, path = mutate.pth_seeds(), 0, 0, tmp_path / "a"
    tensors = {"w": torch.arange(6.0).view(2, 3), "v": torch.ones(1, 3).double(), "h": torch.ones(4).half()}
    stored = [b.safe_of(tensors, {"a": "b"})]
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        archive = rng.random() < 0.6
        raw = mutate.pth(rng, seeds) if archive else mutate.safetensors(rng, stored)
        path.write_bytes(raw)
        try:
            ours = read_all(path)
        except LoadError:
            continue
        try:
            theirs = torch.load(path, weights_only=True) if archive else load_file(path)
        except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, EOFError, AttributeError) as error:
            ours_alone += 1
            print(f"only we read it: {type(error).__name__} {str(error)[:90]!r}: seed {seed!r} {number}")
            continue
        except Exception as error:
            if "Weights only load failed" not in str(error):
                raise
            ours_alone += 1
            continue
        both += 1
        try:
            if archive:
                same(ours, theirs)
            else:
                same(dict(sorted(ours.items())), dict(sorted(theirs.items())))
        except AssertionError as error:
            raise AssertionError(f"seed {seed!r}, file {number}: {error} in {raw.hex()}") from error
    print(f"{count} files: {both} read by both, {ours_alone} by us alone")
    return both, ours_alone


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_valid_files_are_read_as_torch_and_safetensors_read_them(tmp_path):
    valid(tmp_path, 150, "short")


def test_mutated_files_that_both_read_give_the_same_bits(tmp_path):
    both, alone = mutated(tmp_path, 1500, "short")
    assert both > 50
    assert alone < both / 5


def test_a_storage_that_is_described_twice_is_read_as_torch_reads_it_or_not_at_all(tmp_path):
    kinds, path, read = {"Float": 6, "Half": 12, "BFloat16": 12, "Double": 3}, tmp_path / "a.pth", 0
    for first, second in itertools.product(kinds, repeat=2):
        made = (b.tensor(shape=(3,), stride=(1,), kind=f"torch.{kind}Storage", numel=kinds[kind])
                for kind in (first, second))  # fmt: skip
        path.write_bytes(b.archive(b.pickled(*zip("ab", made, strict=True)), more=[("archive/version", b"3\n")]))
        with contextlib.suppress(LoadError):
            same(read_all(path), torch.load(path, weights_only=True))
            read += 1
    assert read == len(kinds)


@pytest.mark.long
def test_many_valid_files_are_read_as_torch_and_safetensors_read_them(tmp_path):
    valid(tmp_path, 3000, "long")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_many_mutated_files_that_both_read_give_the_same_bits(tmp_path):
    both, alone = mutated(tmp_path, 30_000, "long")
    assert both > 1000
    assert alone < both / 5


def test_what_is_left_of_a_file_that_torch_reads_with_checksums_off_is_the_same(tmp_path):
    """torch does not check sums: a flipped bit gives other numbers there, and an error here, never other numbers."""
    path = tmp_path / "a.pth"
    path.write_bytes(b.archive(data=b.FLOATS[:5] + b"\x55" + b.FLOATS[6:], change={1: {"crc": 1}}))
    with read_tensors(path) as file, pytest.raises(LoadError, match="CRC-32"):
        file.read("w")
