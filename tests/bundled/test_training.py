"""Training of a bundled model: losses fall, gradients are the true ones, and what is written is what was trained."""

import json
import math
import os
import time
from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from rwkvlab.bundled import feeding, pretrain_run, training
from rwkvlab.bundled.feeding import KINDS, Feed, rows_of
from rwkvlab.bundled.initial import NORMS, initial_weights, random_starts
from rwkvlab.bundled.micro_data import Batch
from rwkvlab.bundled.pretrain_run import Run, rate
from rwkvlab.bundled.training import Recipe, Trainer, weighted_loss
from rwkvlab.errors import DivergedError, WorkerError
from rwkvlab.model.engine import load_model
from rwkvlab.model.parts import Way
from rwkvlab.model.weights import VERSIONS
from rwkvlab.shapes import Dims
from rwkvlab.tensorfile import write_pth

ARCHS = ("x070", "x060")
VOCAB, RANKS = 40, {"w": 4, "a": 4, "v": 4, "g": 4, "maa": 4, "decay": 4}
ROWS = {"functions": 6, "world": 2, "text": 1}
CPU = torch.device("cpu")
both = pytest.mark.parametrize("arch", ARCHS)


def dims_of(arch):
    return Dims(arch=arch, L=2, H=2, C=32, K=16, V=16, ffn=64, vocab=VOCAB)


def draw(kind, rows, step, seed=0):
    """Rows that go on by a rule of the kind, with padding and tokens of little weight."""
    number = [k.name for k in KINDS].index(kind)
    generator = torch.Generator().manual_seed(seed * 10_000 + step * 10 + number)
    length = KINDS[number].length // 4
    begin = torch.randint(1, VOCAB, (rows, 1), generator=generator)
    tokens = (begin + (number + 2) * torch.arange(length + 1)) % VOCAB
    weights = torch.ones(rows, length)
    weights[:, :2], weights[:, -3:] = 0.1, 0.0
    return Batch(tokens[:, :-1], tokens[:, 1:], weights)


def draw_step(step, seed=0):
    return [draw(kind.name, ROWS[kind.name], step, seed) for kind in KINDS]


def fail_at_five(step):
    if step == 5:
        raise ValueError("no step 5")
    return draw_step(step)


@pytest.fixture(autouse=True)
def short_rows(monkeypatch):
    monkeypatch.setattr(training, "KINDS", tuple(k._replace(length=k.length // 4) for k in KINDS))


def trainer_of(arch, recipe=None, dtype=torch.float32, **options):
    recipe = recipe or Recipe(rows=ROWS, steps=60, warmup=5, lr=4e-3)
    return Trainer(initial_weights(dims_of(arch), RANKS, 0), dims_of(arch), recipe, CPU, dtype, **options)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_losses_of_all_kinds_fall(arch, dtype):
    trainer = trainer_of(arch, dtype=dtype)
    rows = [trainer.step(draw_step(step), 4e-3) for step in range(60)]
    first, last = torch.stack(rows[:5]).mean(0), torch.stack(rows[-5:]).mean(0)
    assert all(math.log(VOCAB) * 0.8 < float(x) < math.log(VOCAB) * 1.5 for x in first[:3])
    assert (last[:3] < 0.7 * first[:3]).all()


@both
def test_a_steps_gradient_is_that_of_the_mean_over_weighted_tokens_of_all_kinds(arch):
    trainer = trainer_of(arch, Recipe(rows=ROWS, clip=1e9))
    weights = {key: x.requires_grad_() for key, x in initial_weights(dims_of(arch), RANKS, 0).items()}
    batches = draw_step(3)
    found = trainer.step(batches, 0.0)
    dims, version, generator = dims_of(arch), VERSIONS[arch], torch.Generator().manual_seed(0)
    total, count = torch.zeros(()), sum(float(batch.weights.sum()) for batch in batches)
    for number, (tokens, targets, counted) in enumerate(batches):
        starts = random_starts(dims, len(tokens), 0.5, generator)
        loss = weighted_loss(dims, Way(backend="naive"), weights, tokens, targets, counted, starts)
        torch.testing.assert_close(found[number], loss.detach() / counted.sum(), rtol=1e-5, atol=1e-6)
        total = total + loss / count
    keys = list(weights)
    want = dict(zip(keys, torch.autograd.grad(total, list(weights.values())), strict=True))
    got = trainer._named([flat.grad for flat in trainer.flats])
    norm = math.sqrt(sum(float(x.square().sum()) for x in want.values()))
    torch.testing.assert_close(float(found[3]), norm, rtol=1e-4, atol=0)
    for key in keys:
        torch.testing.assert_close(got[key], want[key], rtol=1e-3, atol=1e-5 * norm, msg=key)
    assert set(got) == set(want) == set(version.shapes(dims, RANKS))


def test_the_loss_is_that_of_the_mean_over_tokens_by_hand():
    dims, batch = dims_of("x070"), draw("functions", 3, 1)
    weights = initial_weights(dims, RANKS, 0)
    starts = torch.zeros(dims.L, 3, dims.H, dims.V, dims.K)
    got = weighted_loss(dims, Way(backend="chunked"), weights, *batch, starts)
    write = {key: x.clone() for key, x in weights.items()}
    from rwkvlab.model.flow import Flow

    flow = Flow(list(starts), [torch.zeros(3, dims.C)] * 2, [torch.zeros(3, dims.C)] * 2)
    x = VERSIONS["x070"].run(VERSIONS["x070"].prepare(write, dims), batch.tokens, flow, Way(backend="naive"))
    logits = x @ weights["head.weight"].T
    want = sum(
        float(cross_entropy(logits[row, at], batch.targets[row, at])) * float(batch.weights[row, at])
        for row in range(3)
        for at in range(batch.tokens.shape[1])
    )
    assert float(got) == pytest.approx(want, rel=1e-5)


@both
def test_compiled_passes_train_alike(arch, monkeypatch):
    short = (KINDS[0]._replace(length=12), KINDS[1]._replace(length=9))
    monkeypatch.setattr(training, "KINDS", short)
    torch.compiler.reset()

    def cut(step):
        return [
            Batch(*(x[:, : kind.length] for x in batch)) for kind, batch in zip(short, draw_step(step), strict=False)
        ]

    plain, traced = trainer_of(arch), trainer_of(arch, compiled="aot_eager")
    want = torch.stack([plain.step(cut(step), 1e-3) for step in range(3)])
    found = torch.stack([traced.step(cut(step), 1e-3) for step in range(3)])
    assert traced._loss is not weighted_loss  # it did not fall back
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-4)
    torch.compiler.reset()


def test_what_cannot_be_compiled_goes_on_without(capsys):
    torch.compiler.reset()

    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    trainer = trainer_of("x070", compiled=broken)
    want = trainer_of("x070").step(draw_step(0), 1e-3)
    torch.testing.assert_close(trainer.step(draw_step(0), 1e-3), want, rtol=0, atol=0)
    assert "goes on without torch.compile" in capsys.readouterr().out
    torch.compiler.reset()


@both
def test_only_large_matrices_shrink_and_every_tensor_learns(arch):
    trainer = trainer_of(arch, Recipe(rows=ROWS, lr=1e-3, weight_decay=1.0))
    before = trainer.weights()
    first, second = trainer._keys
    assert "emb.weight" in first and "blocks.1.ffn.key.weight" in first
    assert all(key.endswith(".weight") for key in first)
    assert "blocks.0.ln1.weight" in second and len(first) + len(second) == len(before)
    for step in range(4):
        trainer.step(draw_step(step), 1e-2)
    after = trainer.weights()
    assert [key for key, x in after.items() if torch.equal(x, before[key])] == []


@both
def test_the_written_file_is_the_trained_model(arch, tmp_path):
    trainer = trainer_of(arch)
    for step in range(20):
        trainer.step(draw_step(step), 4e-3)
    weights = trainer.weights()
    shapes = VERSIONS[arch].shapes(dims_of(arch), RANKS)
    assert {key: tuple(x.shape) for key, x in weights.items()} == shapes
    assert {x.dtype for x in weights.values()} == {torch.bfloat16}
    write_pth(tmp_path / "model.pth", weights)
    model = load_model(tmp_path / "model.pth", device="cpu", dtype="fp32")
    assert model.dims == dims_of(arch) and model.dims.arch == arch
    batch = draw("world", 2, 99)
    logits = model.forward(batch.tokens).logits
    loss = cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
    full = batch.weights.flatten() >= 1
    held = trainer.held_out({"world": [batch]})["world"]
    assert held == pytest.approx(float(loss[full].mean()), rel=0.02)
    assert held < 0.8 * math.log(VOCAB)


def test_the_same_recipe_gives_the_same_steps_and_another_seed_others():
    runs = []
    for seed in (0, 0, 1):
        trainer = trainer_of("x070", Recipe(rows=ROWS, seed=seed))
        runs.append(torch.stack([trainer.step(draw_step(step), 1e-3) for step in range(3)]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.allclose(runs[0], runs[2])


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_the_order_of_the_steps_whatever_the_number_of_workers(workers):
    feed = Feed(partial(draw_step, seed=4), workers)
    try:
        for step in range(8):
            for got, want in zip(feed.take(), draw_step(step, 4), strict=True):
                assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))
    finally:
        feed.close()
    assert not any(worker.is_alive() for worker in feed._workers)


def test_a_worker_that_cannot_draw_says_why():
    feed = Feed(fail_at_five, 2)
    try:
        for _ in range(5):
            feed.take()
        with pytest.raises(WorkerError, match=r"step 5 .*no step 5"):
            feed.take()
    finally:
        feed.close()


def test_a_worker_that_ends_is_noticed(monkeypatch):
    monkeypatch.setattr(feeding, "WAIT", 0.2)
    feed = Feed(lambda step: os._exit(1), 1)
    try:
        with pytest.raises(WorkerError, match="step 0 ended"):
            feed.take()
    finally:
        feed.close()


def test_the_shares_of_the_tokens_are_those_of_the_kinds():
    rows = rows_of(65536)
    tokens = {kind.name: rows[kind.name] * kind.length for kind in KINDS}
    for kind in KINDS:
        assert tokens[kind.name] / sum(tokens.values()) == pytest.approx(kind.share, abs=0.02)
    assert sum(tokens.values()) == pytest.approx(65536, rel=0.03)
    assert all(count >= 1 for count in rows_of(100).values())


def test_the_rate_rises_then_falls_to_its_last():
    recipe = Recipe(steps=1000, warmup=100, lr=2.0, last=0.01)
    rates = [rate(recipe, step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02) and max(rates) == rates[100] == pytest.approx(2.0)
    assert rates[:101] == sorted(rates[:101]) and rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[-1] == pytest.approx(0.02, rel=0.05)
    longer = Recipe(steps=5000, warmup=100, lr=2.0)
    assert [rate(longer, step) for step in range(100)] == rates[:100]


def run_of(tmp_path, monkeypatch, recipe, **options):
    monkeypatch.setattr(pretrain_run, "LOGGED", 5)
    monkeypatch.setattr(pretrain_run, "TIMED", (5, 10))
    trainer = trainer_of("x070", recipe)
    held = {kind.name: [draw(kind.name, 2, 1, seed=7)] for kind in KINDS}
    return Run(trainer, Feed(draw_step, 0), held, tmp_path / "rwkv7.pth", **options)


def test_a_run_writes_its_weights_and_its_log_on_the_way(tmp_path, monkeypatch, capsys):
    run = run_of(tmp_path, monkeypatch, Recipe(rows=ROWS, steps=23, warmup=10, lr=4e-3))
    run.go()
    log = json.loads((tmp_path / "log.json").read_text("utf-8"))
    assert log["steps"] == log["recipe"]["steps"] == 23
    assert [row["step"] for row in log["mean losses of 5 steps"]] == [5, 10, 15, 20, 23]
    held = log["held-out losses of full weight"]
    assert held[0]["step"] == 0 and held[-1]["step"] == 23
    assert all(held[-1][kind.name] < held[0][kind.name] for kind in KINDS)
    assert log["torch"] == torch.__version__ and log["device"] == "cpu"
    written = load_model(tmp_path / "rwkv7.pth", device="cpu")._checkpoint.weights
    assert all(torch.equal(x.view(-1), written[key].view(-1)) for key, x in run.trainer.weights().items())
    said = capsys.readouterr().out
    assert "step 10 of 23: functions " in said and "tokens/s" in said and "held out" in said


def test_a_run_of_so_many_seconds_plans_its_steps_and_can_be_repeated(tmp_path, monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(pretrain_run, "perf_counter", lambda: clock[0])
    recipe = Recipe(rows=ROWS, warmup=12, lr=4e-3)
    run = run_of(tmp_path, monkeypatch, recipe, seconds=5.0)
    step, held_out = run.trainer.step, run.trainer.held_out

    def slow(batches, rate):
        clock[0] += 1.0 if clock[0] == 100 else 0.1  # the first one compiles
        return step(batches, rate)

    def slow_too(batches):
        clock[0] += 0.01
        return held_out(batches)

    monkeypatch.setattr(run.trainer, "step", slow)
    monkeypatch.setattr(run.trainer, "held_out", slow_too)
    run.go()
    steps = run.recipe.steps
    assert "100.0 ms a step" in capsys.readouterr().out
    assert 104.5 < clock[0] < 105
    log = json.loads((tmp_path / "log.json").read_text("utf-8"))
    assert log["steps"] == log["recipe"]["steps"] == steps
    monkeypatch.setattr(pretrain_run, "perf_counter", time.perf_counter)
    again = run_of(tmp_path, monkeypatch, Recipe(rows=ROWS, warmup=12, lr=4e-3, steps=steps))
    again.go()
    assert all(torch.equal(x, again.trainer.weights()[key]) for key, x in run.trainer.weights().items())


def test_a_loss_that_is_not_finite_stops_the_run_and_the_last_good_weights_are_written(tmp_path, monkeypatch):
    run = run_of(tmp_path, monkeypatch, Recipe(rows=ROWS, steps=40, warmup=5))
    kept = {}
    step = run.trainer.step

    def poisoned(batches, rate):
        done = len(kept)
        kept[done] = run.trainer.weights()
        if done == 12:
            with torch.no_grad():
                run.trainer.flats[0][7] = math.nan
        return step(batches, rate)

    monkeypatch.setattr(run.trainer, "step", poisoned)
    with pytest.raises(DivergedError, match=r"at step 13; .* of step 10"):
        run.go()
    written = load_model(tmp_path / "rwkv7.pth", device="cpu")._checkpoint.weights
    assert all(torch.equal(x.view(-1), written[key].view(-1)) for key, x in kept[10].items())


@both
def test_initial_weights_of_both_models_read_finite_logits_near_the_even_guess(arch, tmp_path):
    dims = Dims(arch=arch, L=6, H=4, C=256, K=64, V=64, ffn=512, vocab=3584)
    weights = initial_weights(dims, RANKS, 0)
    starts = random_starts(dims, 4, 0.5, torch.Generator().manual_seed(1))
    tokens = torch.randint(0, 3584, (4, 33), generator=torch.Generator().manual_seed(2))
    ones = torch.ones(4, 32)
    loss = weighted_loss(dims, Way(backend="chunked"), weights, tokens[:, :-1], tokens[:, 1:], ones, starts) / 128
    assert math.log(3584) - 0.1 < float(loss) < math.log(3584) + 0.5
    if arch == "x060":
        decay = torch.stack([weights[f"blocks.{i}.att.time_decay"].view(-1) for i in range(6)])
        assert (decay[:, 0] == -6).all() and torch.allclose(decay[:, -1], torch.tensor(-1.0))
        assert (decay[:, 1:] >= decay[:, :-1]).all()
        mixes = [x for key, x in weights.items() if "time_maa_" in key and x.numel() == 256]
        assert len(mixes) == 6 * 8 and all(float(x.min()) >= -0.31 and float(x.max()) <= 1 for x in mixes)


def test_random_starts_are_drawn_where_the_generator_is_and_keep_their_norms():
    dims = dims_of("x060")
    starts = random_starts(dims, 300, 0.5, torch.Generator().manual_seed(0))
    assert starts.shape == (2, 300, 2, 16, 16) and starts.dtype is torch.float32
    norms = starts.norm(dim=(-2, -1))
    assert 110 < int((norms[0, :, 0] > 0).sum()) < 190
    assert NORMS[0] * 0.99 < float(norms[norms > 0].min()) and float(norms.max()) < NORMS[1] * 1.01
