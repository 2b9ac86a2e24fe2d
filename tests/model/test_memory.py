"""What is free is known before a model is loaded, and what has no room is refused with what would have some."""

import os
import warnings
from pathlib import Path

import pytest
import torch

import rwkvlab as lab
from rwkvlab.errors import LoadError, RoomError
from rwkvlab.model import memory, weights

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GB = 10**9


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """machine(free, swap=0, limit=None, used=0, dropped=0) -> /proc/meminfo and the container's files, in bytes."""

    def make(free, swap=0, limit=None, used=0, dropped=0):
        (tmp_path / "meminfo").write_text(
            f"MemTotal: 9 kB\nMemAvailable:   {free // 1024} kB\nSwapFree: {swap // 1024} kB\n"
        )
        if limit is not None:
            files = {"max": limit, "current": used, "stat": f"anon 7\ninactive_file {dropped}\nactive_file 3"}
            for name, content in files.items():
                (tmp_path / f"memory.{name}").write_text(f"{content}\n")

    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    return make


def test_free_memory_is_that_of_this_machine():
    free = memory.free_memory(CPU)
    if not Path("/proc/meminfo").exists():
        assert free is None
        return
    assert 2**20 < free < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_what_the_system_does_not_tell_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    assert memory.free_memory(CPU) is None
    for content in ("MemTotal: 5 kB\n", "", "MemAvailable: é kB\n"):
        (tmp_path / "meminfo").write_text(content, "utf-8")
        assert memory.free_memory(CPU) is None
    assert memory.free_memory(torch.device("meta")) is None


def test_a_container_may_have_less_than_the_machine(machine):
    machine(8192)
    assert memory.free_memory(CPU) == 8192
    machine(8192, limit="max", used=5)
    assert memory.free_memory(CPU) == 8192
    machine(8192, limit=5000, used=2000)
    assert memory.free_memory(CPU) == 3000
    machine(8192, limit=5000, used=2000, dropped=500)
    assert memory.free_memory(CPU) == 3500
    machine(8192, limit=5000, used=6000)
    assert memory.free_memory(CPU) == 0
    machine(8192, limit=10**9)
    assert memory.free_memory(CPU) == 8192


def room(numbers, dtype=torch.float32, device=CPU):
    return memory.check_room(
        "'m.pth'", {"emb.weight": numbers, "time_decay": 8}, {"emb.weight": dtype, "time_decay": torch.float32}, device
    )


def test_weights_that_fit_are_let_in_without_a_word(machine):
    machine(4 * GB)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert room(GB // 2) == 4 * (GB // 2) + 32
        assert room(GB, torch.bfloat16) == 2 * GB + 32
        assert room(GB // 10, torch.float16) == GB // 5 + 32


def test_weights_that_cannot_fit_are_refused_with_a_dtype_that_does(machine):
    machine(4 * GB)
    with pytest.raises(
        RoomError,
        match=r"^'m\.pth': its weights need 7\.6 GB as fp32, 4 GB are free on cpu; load it with "
        r'dtype="bf16" \(3\.8 GB\); free some memory, or take a smaller model$',
    ) as caught:
        room(19 * GB // 10)
    assert isinstance(caught.value, LoadError) and isinstance(caught.value, MemoryError)
    for numbers, dtype in ((4 * GB, torch.float32), (4 * GB, torch.bfloat16)):
        with pytest.raises(RoomError) as caught:
            room(numbers, dtype)
        assert "dtype=" not in str(caught.value)


def test_weights_that_hardly_fit_are_warned_of(machine):
    machine(4 * GB)
    with pytest.warns(
        UserWarning, match=r'need 5 GB as fp32, 4 GB are free on cpu: they may not fit; load it with dtype="bf16"'
    ):
        room(5 * GB // 4)
    machine(4 * GB, swap=4 * GB)
    with pytest.warns(UserWarning, match="may not fit"):
        room(19 * GB // 10)


def test_a_gpu_that_is_too_small_names_the_cpu(machine, monkeypatch):
    machine(9 * GB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * GB, 8 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: GB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: GB // 2)
    assert memory.free_memory(CUDA) == 4.5 * GB
    with pytest.raises(RoomError, match='free on cuda; load it with device="cpu"; free some memory'):
        room(5 * GB // 2, torch.bfloat16, CUDA)


def test_a_model_without_room_is_refused_before_its_weights_are_read(tiny_file, machine, monkeypatch):
    machine(1024)
    monkeypatch.setattr(weights.Fingerprint, "add", lambda *_: pytest.fail("read"))
    with pytest.raises(RoomError, match=r"'tiny\.pth': its weights need .* are free on cpu"):
        lab.load_model(tiny_file, tokenizer="bytes", device="cpu")


def test_the_size_that_is_asked_for_is_that_of_the_weights(tiny_file, monkeypatch):
    asked = []
    real = weights.check_room
    monkeypatch.setattr(weights, "check_room", lambda *given: asked.append(real(*given)) or asked[-1])
    for dtype in ("fp32", "bf16"):
        loaded = weights.load_weights(tiny_file, CPU, dtype)
        assert asked.pop() == sum(weight.nbytes for weight in loaded.weights.values())
