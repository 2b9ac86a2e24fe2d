"""Passes in CUDA graphs: when a shape is recorded, and that a replay gives what the pass itself gives."""

import pytest
import torch

import rwkvlab as lab
from rwkvlab.bundled.shelf import bundled
from rwkvlab.model.parts import Way
from rwkvlab.model.tuning import graphed, many
from rwkvlab.model.tuning.graphed import KEPT, GraphedPass, length, with_room
from rwkvlab.tasks.styleworld import world_tasks

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.parametrize(
    ("tokens", "filled"), [(1, 16), (16, 16), (17, 32), (128, 128), (129, 144), (250, 256), (257, 288), (1000, 1024)]
)
def test_lengths_are_filled_up_by_an_eighth_at_most(tokens, filled):
    assert length(tokens) == filled


def test_few_lengths_are_left_and_each_is_its_own():
    found = {length(tokens) for tokens in range(1, 4097)}
    assert len(found) <= 8 * 6 and all(length(tokens) == tokens for tokens in found)
    assert all(tokens <= length(tokens) <= max(tokens + 15, tokens * 9 / 8) for tokens in range(1, 4097))


class Eager:
    """A recording that reads anew each time: what can be seen of graphs without a GPU."""

    made = 0

    def __init__(self, read, tokens, given, pool, other=None):
        Eager.made += 1
        self.read, self.pool, self.shape = read, "pool", tokens.shape

    def begins_like(self, given):
        return True

    def forward(self, tokens, given):
        assert tokens.shape == self.shape
        self.given = [x.detach().requires_grad_(x.requires_grad) for x in given]
        with torch.enable_grad():
            self.x = self.read(tokens, self.given)
        return self.x.detach()

    def backward(self, slope):
        return torch.autograd.grad(self.x, [x for x in self.given if x.requires_grad], slope)


@pytest.fixture
def eager(model, monkeypatch):
    """A GraphedPass that takes the CPU for a GPU."""
    monkeypatch.setattr(graphed, "Recording", Eager)
    monkeypatch.setattr(Eager, "made", 0)
    passes = GraphedPass(model)
    passes._most = passes._fits = graphed.TOKENS
    return passes


def read(reader, model, rows, tokens, seed=0):
    """x of the counted tokens and the gradient of the initial state, from a pass of `reader`."""
    g = torch.Generator().manual_seed(seed)
    wkv = torch.randn(model.zero().wkv.shape, generator=g).to(model.device).requires_grad_()
    ids = torch.randint(model.dims.vocab, (rows, tokens), generator=g)
    at = torch.rand(rows, tokens, generator=g) < 0.5
    x = reader.hidden(ids, model.begin([lab.State(wkv, like=model)] * rows), at)
    (gradient,) = torch.autograd.grad(x.float().square().sum(), wkv)
    return x, gradient


def test_a_shape_is_recorded_when_it_comes_again(eager, model):
    for tokens, made in ((20, 0), (30, 1), (25, 1), (40, 1), (48, 2), (20, 2)):
        found, want = read(eager, model, 3, tokens, tokens), read(model, model, 3, tokens, tokens)
        assert Eager.made == made
        for x, y in zip(found, want, strict=True):
            assert (x - y).abs().max() <= 1e-5 * y.abs().max()


def test_without_gradients_or_on_a_cpu_or_with_many_tokens_nothing_is_recorded(eager, model, monkeypatch):
    flow, at = model.begin([None]), torch.ones(1, 20, dtype=torch.bool)
    ids = torch.zeros(1, 20, dtype=torch.int64)
    want = model.hidden(ids, model.begin([None]), at)
    assert torch.equal(eager.hidden(ids, flow, at), want)
    monkeypatch.setattr(eager, "_most", 3 * 32 - 1)
    for _ in range(3):
        read(eager, model, 3, 20)
    assert not eager._seen and Eager.made == 0
    assert GraphedPass(model)._most == 0 and GraphedPass(model, Way(tap=print))._most == 0


def test_there_is_an_end_to_recordings_and_the_first_ones_stay(eager, model, monkeypatch):
    monkeypatch.setattr(graphed, "KEPT", 2)
    for tokens in (32, 48, 64) * 3:
        read(eager, model, 1, tokens)
    assert Eager.made == 2 and [many for _, many, *_ in eager._known] == [32, 48]
    assert 8 * 6 > KEPT >= 16


def test_long_batches_are_fewer(eager, model, monkeypatch):
    monkeypatch.setattr(graphed, "TOKENS", 40)
    for tokens in (32, 48, 64) * 3:
        read(eager, model, 1, tokens)
    assert [many for _, many, *_ in eager._known] == [32, 48]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room"), RuntimeError("operation not permitted\nmore")])
def test_what_cannot_be_recorded_is_read_without(eager, model, monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(graphed, "Recording", fails)
    read(eager, model, 2, 40)
    if isinstance(error, torch.OutOfMemoryError):
        found = read(eager, model, 2, 40)
        assert eager._fits == 2 * 48 - 1
    else:
        with pytest.warns(RuntimeWarning, match="goes on without a CUDA graph, more slowly: operation not permitted$"):
            found = read(eager, model, 2, 40)
        assert eager._fits == 0
    assert torch.allclose(found[1], read(model, model, 2, 40)[1], rtol=1e-4, atol=1e-5)
    read(eager, model, 2, 40)


def test_recordings_make_room_for_what_does_not_fit_beside_them(eager, model):
    for _ in range(2):
        read(eager, model, 1, 20)
    tries = []

    def work(always=False):
        tries.append(len(eager._known))
        if always or eager._known:
            raise torch.OutOfMemoryError("no room")
        return "done"

    assert with_room(eager, work) == "done" and tries == [1, 0]
    for passes in (eager, None):
        with pytest.raises(torch.OutOfMemoryError):
            with_room(passes, lambda: work(always=True))
    assert tries == [1, 0, 0, 0]
    for _ in range(3):
        read(eager, model, 1, 20)
    assert Eager.made == 1  # no more are made


@pytest.mark.parametrize("way", ["tune", "tune_many"])
def test_a_step_is_begun_anew_where_memory_was_short_in_its_middle(model, monkeypatch, way):
    examples = ["a" * 20, "b" * 9, "c" * 30]
    settings = {"steps": 3, "batch": 3, "lr": 0.01}

    def tuned():
        if way == "tune":
            return lab.tune(model, examples, **settings).wkv
        return lab.tune_many(model, {"one": examples}, **settings)["one"].wkv

    monkeypatch.setattr(many, "PIECE", 40)  # several pieces a step
    want, head, calls, closed = tuned(), model.head, [], []

    def short(x):
        calls.append(len(x))
        if len(calls) == 5:
            raise torch.OutOfMemoryError("no room")
        return head(x)

    monkeypatch.setattr(model, "head", short)
    monkeypatch.setattr(GraphedPass, "close", lambda passes: closed.append(passes) is None)
    calls += [0] * (3 if way == "tune" else 0)  # so that the fifth is in the second step: of one piece, or of three
    assert torch.equal(tuned(), want)
    assert len(closed) == (2 if way == "tune" else 1)  # at the end of `tune`, too


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("name", ["micro", "rwkv7", "rwkv6"])
@pytest.mark.parametrize("recompute", [True, False])
def test_a_replay_gives_the_bits_of_the_pass(name, recompute):
    model, _ = bundled(name)
    passes = GraphedPass(model, Way(recompute=recompute))
    shapes = [(4, 96), (2, 60), (16, 112), (4, 64)] * 3
    found = [read(passes, model, *shape, seed) for seed, shape in enumerate(shapes)]
    assert len(passes._known) == 4
    passes._known.clear()
    passes._fits = 0
    for seed, (rows, tokens) in enumerate(shapes):
        for x, y in zip(found[seed], read(passes, model, rows, length(tokens), seed), strict=True):
            if tokens == length(tokens):
                assert torch.equal(x, y)
    x, gradient = found[9]
    assert x.isfinite().all() and gradient.isfinite().all() and gradient.abs().max() > 0


def test_the_gradients_of_a_pass_that_another_came_after_are_refused(eager, model):
    """Of whatever shape it is: all work in the same memory."""
    wkv = torch.zeros(model.zero().wkv.shape, requires_grad=True)

    def last(tokens):
        ids, at = torch.zeros(1, tokens, dtype=torch.int64), torch.ones(1, tokens, dtype=torch.bool)
        return eager.hidden(ids, model.begin([lab.State(wkv, like=model)]), at)

    before = [last(16), last(32)]
    x, y = last(16), last(32)
    with pytest.raises(RuntimeError, match="before the next pass"):
        x.sum().backward()
    for one in (*before, y):
        one.sum().backward()


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("name", ["rwkv7", "rwkv6"])
@pytest.mark.parametrize("settings", [{}, {"shifts": True}, {"teacher": "emoji:"}, {"checkpointing": False}])
def test_tuning_goes_the_same_way_with_graphs_and_without(name, settings, monkeypatch):
    model, _ = bundled(name)
    (task,) = world_tasks(64, held_out=False, styles=("emoji",))
    pairs = list(task.examples())
    examples = [("".join(map("".join, pairs[: i % 4])) + pairs[i][0], pairs[i][1]) for i in range(64)]  # of all lengths
    made, init = [], graphed.Recording.__init__
    monkeypatch.setattr(graphed.Recording, "__init__", lambda one, *given: made.append(len(given)) or init(one, *given))

    def tuned():
        state = lab.tune(model, examples, steps=40, batch=2, lr=0.02, **settings)
        return torch.cat([state.wkv.flatten(), state.att_shift.flatten(), state.ffn_shift.flatten()])

    found = tuned()
    assert made[0] == 4 and set(made[1:]) == {5}  # all but the first share buffers
    monkeypatch.setattr(GraphedPass, "_recorded", lambda *_: None)
    assert torch.equal(found, tuned())
