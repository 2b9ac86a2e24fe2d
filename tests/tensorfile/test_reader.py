"""What torch and safetensors write is read bit for bit as they read it, one tensor at a time."""

import struct
import threading
import time
import tracemalloc
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import load_file, save_file

from rwkvlab.errors import ArgError, FormatError, SchemaError
from rwkvlab.tensorfile import read_tensors


def bits(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    odd = torch.tensor([float("nan"), float("-inf"), -0.0, 1e-45, 3.4e38])
    halves = torch.randn(2, 20)
    return {
        **{str(dtype): torch.randn(3, 5).to(dtype) for dtype in (torch.float64, torch.float32, torch.float16)},
        "bf16": torch.randn(2, 3, 4, dtype=torch.bfloat16),
        "odd": odd,
        "odd_half": odd.half(),
        "transposed": torch.randn(4, 6).t(),
        "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
        "sliced": torch.randn(10, 10)[2:5, 1:8:2],
        "row": halves[1],
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "文言文 🎉": torch.randn(2),
    }


@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_a_pth_is_read_as_torch_reads_it(tmp_path, tensors, kind):
    path = tmp_path / "模型.pth"
    torch.save(kind(tensors), path)
    want = torch.load(path, weights_only=True)
    with read_tensors(path) as file:
        assert file.format == "pth"
        assert file.keys() == list(want)
        for key in file:
            assert file.info(key) == (want[key].dtype, tuple(want[key].shape))
            assert same(file.read(key), want[key]), key
            assert file.read(key).stride() == want[key].stride() or key == "sliced"


def test_a_state_dict_of_a_module_is_read_with_its_versions_table(tmp_path):
    module = torch.nn.Linear(3, 4)
    torch.save(module.state_dict(), tmp_path / "m.pth")
    with read_tensors(tmp_path / "m.pth") as file:
        assert file.keys() == ["weight", "bias"]
        assert same(file.read("weight"), module.weight)


def test_safetensors_are_read_as_their_own_library_reads_them(tmp_path, tensors):
    path = tmp_path / "a.bin"
    save_file({key: value.detach().clone().contiguous() for key, value in tensors.items()}, path, {"format": "pt"})
    want = load_file(path)
    with read_tensors(path) as file:
        assert file.format == "safetensors"
        assert file.metadata == {"format": "pt"}
        assert sorted(file) == sorted(want)
        assert all(same(file.read(key), want[key]) for key in file)


def test_the_content_decides_and_not_the_suffix(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    save_file({"w": torch.ones(2)}, tmp_path / "a.pth")
    with read_tensors(tmp_path / "a.safetensors") as a, read_tensors(str(tmp_path / "a.pth")) as b:
        assert (a.format, b.format) == ("pth", "safetensors")


def test_a_file_without_checksums_is_read_with_a_warning(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.arange(5.0)}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.warns(UserWarning, match="CRC-32"):
        file = read_tensors(tmp_path / "a.pth")
    with file:
        assert file.read("w").tolist() == [0, 1, 2, 3, 4]
        assert "CRC-32" in file.notes[0]


def as_if_beyond_4_gib(raw):
    """The same archive with every size and offset of its directory in 64-bit fields, as torch writes above 4 GiB."""
    end64 = raw.rindex(b"PK\x06\x06")
    count, _, start = struct.unpack_from("<3Q", raw, end64 + 32)
    at, directory = start, b""
    for _ in range(count):
        head = bytearray(raw[at : at + 46])
        name, extra, _ = struct.unpack_from("<3H", head, 28)
        packed, full = struct.unpack_from("<2I", head, 20)
        (offset,) = struct.unpack_from("<I", head, 42)
        struct.pack_into("<2I", head, 20, 2**32 - 1, 2**32 - 1)
        struct.pack_into("<I", head, 42, 2**32 - 1)
        struct.pack_into("<H", head, 30, 28)
        directory += head + raw[at + 46 : at + 46 + name] + struct.pack("<2H3Q", 1, 24, full, packed, offset)
        at += 46 + name + extra
    record = bytearray(raw[end64 : end64 + 56])
    struct.pack_into("<2Q", record, 40, len(directory), start)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, start + len(directory), 1)
    last = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    return raw[:start] + directory + record + locator + last


def test_the_64_bit_directory_of_a_large_checkpoint_is_read(tmp_path, tensors):
    path = tmp_path / "a.pth"
    torch.save(tensors, path)
    path.write_bytes(as_if_beyond_4_gib(path.read_bytes()))
    want = torch.load(path, weights_only=True)
    with read_tensors(path) as file:
        assert all(same(file.read(key), want[key]) for key in want)


def test_each_read_is_a_copy_of_its_own(tmp_path):
    torch.save({"w": torch.ones(4)}, tmp_path / "a.pth")
    with read_tensors(tmp_path / "a.pth") as file:
        file.read("w").zero_()
        assert file.read("w").tolist() == [1, 1, 1, 1]


def test_wrong_calls_say_what_to_do(tmp_path):
    torch.save({"w": torch.ones(4)}, tmp_path / "a.pth")
    with read_tensors(tmp_path / "a.pth") as file, pytest.raises(SchemaError, match=r"'a\.pth': no tensor 'v'"):
        file.read("v")
    with pytest.raises(ArgError, match="was closed"):
        file.read("w")
    file.close()


def test_damage_in_a_part_that_a_view_does_not_use_is_found(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"w": torch.arange(100.0)[:3]}, path)
    raw = path.read_bytes()
    at = raw.index(torch.tensor([50.0, 51.0]).numpy().tobytes())
    path.write_bytes(raw[:at] + b"\x01" + raw[at + 1 :])
    with read_tensors(path) as file, pytest.raises(FormatError, match="CRC-32 differs in 'data/0'"):
        file.read("w")


def test_threads_may_read_from_one_file(tmp_path):
    tensors = {f"w{i}": torch.full((50_000,), float(i)) for i in range(16)}
    torch.save(tensors, tmp_path / "a.pth")
    wrong = []

    def work(file, keys):
        wrong.extend(key for key in keys if not same(file.read(key), tensors[key]))

    with read_tensors(tmp_path / "a.pth") as file:
        threads = [threading.Thread(target=work, args=(file, list(file)[i::4])) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_opening_a_file_allocates_nothing_for_its_tensors(tmp_path):
    torch.save({f"w{i}": torch.zeros(1 << 20) for i in range(8)}, tmp_path / "a.pth")
    tracemalloc.start()
    file = read_tensors(tmp_path / "a.pth")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    file.close()
    assert peak < 1 << 20


@pytest.mark.long
def test_reading_a_warm_pth_takes_at_most_two_and_a_half_times_a_mapped_copy(tmp_path):
    path = tmp_path / "big.pth"
    torch.save({f"w{i}": torch.randn(2048, 4096).bfloat16() for i in range(20)}, path)

    def mapped():
        return {key: value.clone() for key, value in torch.load(path, mmap=True, weights_only=True).items()}

    def ours():
        with read_tensors(path) as file:
            return {key: file.read(key) for key in file}

    def best(work):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)

    best(mapped)
    ratios: list[float] = []
    while len(ratios) < 8 and min(ratios, default=9) >= 2.5:  # a busy machine gets another chance
        ratios.append(best(ours) / best(mapped))
    print(f"ratios to a mapped copy: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    assert min(ratios) < 2.5
