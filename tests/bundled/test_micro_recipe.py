"""The recipe, run again from its seed, does what its log and its files say."""

import json
import math
import random
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from rwkvlab.bundled import micro_recipe
from rwkvlab.bundled.initial import NORMS
from rwkvlab.bundled.micro_data import GUESSED, TAGS, VOCAB, batch, document, vocabulary
from rwkvlab.bundled.micro_recipe import DIMS, RANKS, Recipe, initial_weights, random_starts, train, tune_states
from rwkvlab.bundled.shelf import bundled
from rwkvlab.model import rwkv7
from rwkvlab.model.tokenizer import load_tokenizer
from rwkvlab.model.tuning import tune
from rwkvlab.tasks.builtin import LETTERS, MICRO_FUNCTIONS, micro_tasks

FOLDER = Path(str(files("rwkvlab.bundled"))) / "micro"


@pytest.fixture(scope="module")
def log():
    return json.loads((FOLDER / "log.json").read_text("utf-8"))


def test_the_first_training_steps_repeat_those_of_the_log(log):
    steps = train(Recipe(), initial_weights(0))
    losses = [next(steps).loss for _ in range(12)]
    assert losses == pytest.approx(log["first losses"][:12], rel=1e-3)
    other = next(train(Recipe(seed=1), initial_weights(1))).loss
    assert other != pytest.approx(losses[0], rel=1e-3)


def test_log_and_card_name_the_recipe_in_the_code(log):
    card = json.loads((FOLDER / "card.json").read_text("utf-8"))
    assert log["recipe"] == card["recipe"] == micro_recipe.asdict(Recipe())
    assert card["fingerprint"] == bundled("micro")[0].card.fingerprint
    assert log["seconds"] < 3600
    means = log["mean losses of 50 steps"]
    assert len(means) == Recipe().steps // 50
    assert means[0] > 4 > 0.5 > means[-1]
    assert (FOLDER / "vocab.txt").read_text("utf-8") == vocabulary()


def test_tuning_repeats_and_works_in_sixty_steps():
    model, _ = bundled("micro")
    task = micro_tasks(256, held_out=False)[1]
    states = [tune(model, task.examples(), steps=60, lr=0.08, seed=2) for _ in range(2)]
    assert torch.equal(states[0].wkv, states[1].wkv)
    held = micro_tasks(60, 4)[1]
    said = [g.text for g in model.generate_batch(held.prompts, states[0], temperature=0, max_tokens=10)]
    assert sum(held.grade(said)) >= 45


def test_the_recipe_tunes_the_states_that_are_on_the_shelf(monkeypatch):
    model, shelf = bundled("micro")
    monkeypatch.setattr(micro_recipe, "micro_tasks", lambda *args, **kw: micro_tasks(*args, **kw)[:1])
    (made,) = tune_states(Recipe(), model).values()
    kept = shelf["copy"]
    assert made.card.recipe == kept.card.recipe
    # Adam turns rounding into small steps: over machines the numbers agree in the large, not bit by bit
    assert float((made.wkv - kept.wkv).norm() / kept.wkv.norm()) < 0.1


def test_a_document_is_one_task_and_only_answers_weigh_fully():
    rng, tokenizer = random.Random(1), load_tokenizer(FOLDER / "vocab.txt", VOCAB)
    tagged, leaning = 0, 0
    for _ in range(400):
        tokens, weights = document(rng, 2)
        assert tokens[-1] == 0
        text = tokenizer.decode(tokens)
        tag, colon, pairs = text.rpartition(":")
        asked = [pair.split(">") for pair in pairs.split("\n")]
        fits = [name for name, f in MICRO_FUNCTIONS.items() if all(f(query) == answer for query, answer in asked)]
        assert len(fits) == 1
        assert not colon or fits == [tag]
        full = [token for token, weight in zip(tokens, weights, strict=True) if weight == 1.0]
        assert tokenizer.decode(full) == "\n".join(answer for _, answer in asked)
        assert set(weights) == {1.0, GUESSED}
        tagged += bool(colon)
        leaning += not colon and TAGS[LETTERS.index(text[0]) % 6] == fits[0] + ":"
    assert 160 < tagged < 240
    assert 0.55 < leaning / (400 - tagged) < 0.8


def test_a_batch_predicts_the_next_token_and_padding_weighs_nothing():
    data = batch(random.Random(3), 16)
    assert data.tokens.shape == data.targets.shape == data.weights.shape
    assert torch.equal(data.tokens[:, 1:], data.targets[:, :-1])
    ends = (data.weights > 0).sum(1)
    assert len(set(ends.tolist())) > 1
    for row, end in enumerate(ends.tolist()):
        assert data.targets[row, end - 1] == 0
        assert not data.weights[row, end:].any()


def test_random_starts_have_the_share_and_the_norms_that_they_should():
    starts = torch.stack(random_starts(400, 0.5, torch.Generator().manual_seed(0)))
    norms = starts.norm(dim=(-2, -1))  # [L,B,H]
    noisy = norms[0, :, 0] > 0
    assert 150 < int(noisy.sum()) < 250
    assert torch.equal(noisy.expand(4, -1).T, norms[1] > 0)
    assert NORMS[0] * 0.99 < float(norms[norms > 0].min()) < 0.7
    assert 14 < float(norms.max()) < NORMS[1] * 1.01


def test_every_tensor_has_its_official_shape_and_is_trained():
    weights = initial_weights(0)
    assert {key: tuple(value.shape) for key, value in weights.items()} == rwkv7.shapes(DIMS, RANKS)
    before = {key: value.detach().clone() for key, value in weights.items()}
    steps = train(Recipe(batch=8), weights)
    losses = [next(steps).loss for _ in range(2)]
    assert all(math.isfinite(loss) for loss in losses)
    assert [key for key, value in weights.items() if torch.equal(value, before[key])] == []
