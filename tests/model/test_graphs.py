"""Who owns the buffers of captured steps, with a stand-in for the graph: states never mix, and nothing is lost."""

import contextlib
import gc
import threading
import warnings

import pytest
import torch

from rwkvlab.model import graphs
from rwkvlab.model.graphs import Graphs, Slot, bucket
from rwkvlab.model.parts import Flow
from rwkvlab.shapes import Dims

DIMS = Dims("x070", L=2, H=1, C=4, K=4, V=4, ffn=8, vocab=10)


class Replayed:
    """Runs the step again, on the buffers that it was captured with, and writes what it gives to the same place."""

    def __init__(self, run):
        self.run, self.x = run, run()

    def replay(self):
        self.x.copy_(self.run())


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """No GPU: a capture is a closure over the buffers; returns the sizes that were captured."""
    captured = []

    def record(self, tokens, views):
        captured.append(len(tokens))
        graph = Replayed(lambda: self._run(tokens, views))
        return graph, graph.x

    monkeypatch.setattr(Slot, "_record", record)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return captured


def step(tokens, flow):
    """Every state counts the tokens it has read; wkv in place, the shifts as new tensors, as both kinds of pass do."""
    for i in range(DIMS.L):
        flow.wkv[i].mul_(2).add_(tokens[:, :, None, None])
        flow.att[i] = flow.att[i] + tokens
        flow.ffn[i] = flow.ffn[i] - tokens
    return (flow.wkv[0].sum((1, 2, 3))[:, None] + flow.att[1].sum(1, keepdim=True)).view(-1, 1, 1)


def new_flow(rows, seed=0):
    g = torch.Generator().manual_seed(seed)
    wkv = [torch.randint(0, 9, (rows, 1, 4, 4), generator=g).float() for _ in range(2)]
    return Flow(wkv, *([torch.randint(0, 9, (rows, 4), generator=g).float() for _ in range(2)] for _ in range(2)))


def new_graphs():
    return Graphs(step, DIMS, torch.device("cpu"), torch.float32)


def same(flow, other):
    return all(
        x.equal(y)
        for name in ("wkv", "att", "ffn")
        for x, y in zip(getattr(flow, name), getattr(other, name), strict=True)
    )


class Pair:
    """A flow that goes through the graphs, and its twin that does not."""

    def __init__(self, engine, rows, seed=0):
        self.engine, self.flow, self.twin, self.n = engine, new_flow(rows, seed), new_flow(rows, seed), seed

    def go(self, times=1):
        for _ in range(times):
            self.n += 1
            tokens = torch.arange(len(self.flow.wkv[0]))[:, None] + self.n
            got = self.engine.step(tokens, self.flow, torch.clone)
            assert got.equal(step(tokens, self.twin)) and same(self.flow, self.twin)
        return self

    def pick(self, rows):
        self.flow, self.twin = self.flow.pick(rows), self.twin.pick(rows)
        return self


def test_sizes_of_graphs_waste_little():
    for rows in range(1, 1025):
        size = bucket(rows)
        assert size >= rows and bucket(size) == size and (size - rows < 8 or size / rows < 1.25)


def test_a_batch_is_captured_from_its_second_token_on(stand_in):
    engine = new_graphs()
    pair = Pair(engine, 3).go()
    assert stand_in == []
    pair.go(5)
    assert stand_in == [4]
    del pair
    Pair(engine, 4, seed=1).go()  # that size is there, and nobody's
    assert stand_in == [4] and engine._slots[0].owner is None
    taken = Pair(engine, 4, seed=2).go()
    assert engine._slots[0].owner is taken.flow


def test_rows_that_end_leave_and_the_others_go_on(stand_in):
    pair = Pair(new_graphs(), 12).go(3)
    for keep in ([0, 2, 5, 7, 11], [4, 1], [1]):
        pair.pick(keep).go(3)
    assert stand_in == [16, 8, 2, 1]


def test_batches_take_turns_and_never_mix(stand_in):
    engine = new_graphs()
    pairs = [Pair(engine, rows, seed) for seed, rows in enumerate((2, 2, 5, 1))]
    for _ in range(4):
        for pair in pairs:
            pair.go(2)
    assert len(engine._slots) == graphs.SLOTS


def test_what_a_caller_puts_in_the_place_of_a_tensor_counts(stand_in):
    pair = Pair(new_graphs(), 2).go(3)
    for flow in (pair.flow, pair.twin):
        flow.wkv[1] = torch.full_like(flow.wkv[1], 7)
        flow.ffn = [x + 1 for x in flow.ffn]
    pair.go(2)


def test_what_a_caller_writes_into_a_tensor_counts(stand_in):
    pair = Pair(new_graphs(), 2).go(3)
    for flow in (pair.flow, pair.twin):
        flow.wkv[0].add_(3)
    pair.go(2)


def test_the_tensors_that_came_in_are_not_written_to(stand_in):
    engine = new_graphs()
    Pair(engine, 2).go(3)
    flow = new_flow(2, 5)
    given, kept = list(flow.wkv), [x.clone() for x in flow.wkv]
    engine.step(torch.ones(2, 1, dtype=torch.int64), flow, torch.clone)
    assert all(x.equal(y) for x, y in zip(given, kept, strict=True))


def test_a_flow_of_another_thread_is_left_alone(stand_in):
    engine, errors = new_graphs(), []

    def work(seed):
        try:
            pair = Pair(engine, 2, seed)
            for _ in range(200):
                pair.go()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(engine._slots) <= graphs.SLOTS


def test_buffers_of_a_flow_that_is_gone_are_used_again(stand_in):
    engine = new_graphs()
    for seed in range(4):
        Pair(engine, 4, seed).go(3)
        gc.collect()
    assert len(engine._slots) == 1 and stand_in == [4]


def test_old_graphs_are_dropped(stand_in):
    engine = new_graphs()
    for rows in (64, 56, 48, 40, 32, 24, 16, 8, 4, 2, 1):
        Pair(engine, rows, rows).go(2)
    assert sum(len(slot._graphs) for slot in engine._slots) == graphs.KEPT
    assert [slot.rows for slot in engine._slots] == [64]


def test_large_buffers_do_not_stay_for_small_batches(stand_in, monkeypatch):
    monkeypatch.setattr(graphs, "LARGE", 100)
    engine = new_graphs()
    Pair(engine, 64).go(2)
    Pair(engine, 2).go(2)
    assert [slot.rows for slot in engine._slots] == [2]


def test_without_memory_it_goes_on_without_a_graph(stand_in, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("full")

    engine = new_graphs()
    small = Pair(engine, 2).go(3)
    monkeypatch.setattr(Slot, "_record", full)
    Pair(engine, 8).go(5)
    small.go(2)
    assert stand_in == [2]


def test_a_step_that_cannot_be_recorded_is_told_once(stand_in, monkeypatch):
    def fails(*_):
        raise RuntimeError("not permitted when the stream is capturing\nand more")

    monkeypatch.setattr(Slot, "_record", fails)
    engine = new_graphs()
    with pytest.warns(RuntimeWarning, match="without a CUDA graph, more slowly: not permitted when the stream is capt"):
        Pair(engine, 2).go(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Pair(engine, 2).go(3)


@pytest.mark.parametrize("where", ["_record", "take", "replay"])
def test_an_interrupt_at_any_point_leaves_the_rest_usable(stand_in, monkeypatch, where):
    engine = new_graphs()
    other = Pair(engine, 2, 3).go(3)
    real = getattr(Slot, where)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Slot, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        Pair(engine, 5).go(3)
    monkeypatch.setattr(Slot, where, real)
    other.go(3)
    Pair(engine, 5, 1).go(3)
