"""How CUDA graphs are recorded: one at a time, on a stream of the device, the stream before it back after an error."""

import threading
from contextlib import contextmanager

import pytest
import torch

from rwkvlab.model import capture
from rwkvlab.model.capture import recorded


class Fake:
    """As much of torch.cuda as recording touches: which device and stream are current, and what was recorded where."""

    def __init__(self):
        self.at, self.streams, self.log, self.inside = 0, {0: "main 0", 1: "main 1"}, [], 0

    @contextmanager
    def device(self, device):
        before, self.at = self.at, torch.device(device).index
        try:
            yield
        finally:
            self.at = before

    @contextmanager
    def stream(self, stream):
        index, before = self.at, self.streams[self.at]
        self.streams[index] = stream
        try:
            yield
        finally:
            self.streams[index] = before

    @contextmanager
    def graph(self, graph, pool=None, stream=None, capture_error_mode="global"):
        """As PyTorch's, which leaves its stream the current one where the end of a recording fails."""
        self.log.append((graph, pool, self.at, stream, capture_error_mode))
        self.streams[self.at] = stream
        self.inside += 1
        assert self.inside == 1
        yield
        self.inside -= 1


@pytest.fixture
def cuda(monkeypatch):
    fake = Fake()
    for name in ("device", "stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: fake.at)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: fake.streams[torch.device(device).index])
    monkeypatch.setattr(torch.cuda, "Stream", lambda index: f"aside {index}")
    capture._stream.cache_clear()
    yield fake
    capture._stream.cache_clear()


def test_each_device_has_a_stream_for_it(cuda):
    for index, graph in ((1, "a"), (0, "b"), (1, "c")):
        with recorded(graph, "pool", torch.device("cuda", index)):
            assert cuda.at == index and cuda.streams[index] == f"aside {index}"
        assert cuda.at == 0 and cuda.streams == {0: "main 0", 1: "main 1"}
    assert cuda.log == [
        (name, "pool", at, f"aside {at}", "thread_local") for name, at in (("a", 1), ("b", 0), ("c", 1))
    ]


def test_after_an_error_the_stream_is_the_one_before_and_the_next_can_begin(cuda):
    with pytest.raises(RuntimeError, match="not permitted"), recorded("a", None, torch.device("cuda", 1)):
        raise RuntimeError("not permitted")
    assert cuda.at == 0 and cuda.streams == {0: "main 0", 1: "main 1"}
    cuda.inside = 0
    with recorded("b", None, torch.device("cuda", 1)):
        pass
    assert [graph for graph, *_ in cuda.log] == ["a", "b"]


def test_two_threads_take_turns(cuda):
    entered, leave = threading.Event(), threading.Event()

    def first():
        with recorded("a", None, torch.device("cuda", 0)):
            entered.set()
            assert leave.wait(20)

    def second():
        with recorded("b", None, torch.device("cuda", 0)):
            pass

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert entered.wait(20)
    threads[1].start()
    threads[1].join(0.2)
    assert threads[1].is_alive() and [graph for graph, *_ in cuda.log] == ["a"]
    leave.set()
    for thread in threads:
        thread.join(20)
    assert [graph for graph, *_ in cuda.log] == ["a", "b"] and not cuda.inside
