"""A teacher: what a prompt makes of the model is tuned into a state that does without it."""

import pytest
import torch

from rwkvlab.errors import ArgError, MismatchError, TuneError
from rwkvlab.model.tuning import tune
from rwkvlab.states.state import State

PAIRS = [("a>", "bcd"), ("ba>", "x"), ("yes or no?", "yes"), ("q", "rst")]
LONG = "a long prompt that changes what is said "


def divergence(model, state, teacher, examples=PAIRS):
    """Mean KL(teacher || student) of the tokens of all answers and of the end of text behind them."""
    total, count = 0.0, 0
    for prompt, answer in examples:
        ids, told = model.encode(prompt), model.encode(answer)
        said = []
        for start in (state, model.read(teacher)):
            logits = model.forward([*ids, *told], start).logits[0].double()
            said.append(logits[len(ids) - 1 :].log_softmax(-1))
        total += float((said[1].exp() * (said[1] - said[0])).sum())
        count += len(told) + 1
    return total / count


@pytest.mark.parametrize("arch", ["x070", "x060", "x052"])
def test_the_loss_is_the_divergence_from_the_teacher_and_it_falls(make, arch):
    model, seen = make(arch), []
    state = tune(model, PAIRS, steps=60, lr=0.1, teacher=LONG, on_step=seen.append)
    assert seen[0].loss == pytest.approx(divergence(model, None, LONG), rel=1e-4)
    assert divergence(model, state, LONG) < 0.7 * seen[0].loss
    assert f"teacher of {len(LONG)} tokens" in state.card.recipe


def test_a_weight_mixes_in_the_answers(model):
    def first(**options):
        seen = []
        tune(model, PAIRS, steps=1, on_step=seen.append, **options)
        return seen[0].loss

    taught, told, mixed = first(teacher=LONG), first(), first(teacher=LONG, teacher_weight=0.25)
    assert mixed == pytest.approx(0.25 * taught + 0.75 * told, rel=1e-5)
    assert "weight 0.25" in tune(model, PAIRS, steps=1, teacher=LONG, teacher_weight=0.25).card.recipe


def test_the_state_after_the_prompt_is_the_teacher_already(model):
    seen = []
    start = model.read(LONG)
    tune(model, PAIRS, steps=1, teacher=LONG, init=start, shifts=True, on_step=seen.append)
    assert seen[0].loss == pytest.approx(0, abs=1e-6)


def test_a_state_can_be_the_teacher(model):
    a = tune(model, PAIRS, steps=5, lr=0.1, teacher=model.read(LONG).named("sage"))
    assert torch.equal(a.wkv, tune(model, PAIRS, steps=5, lr=0.1, teacher=LONG).wkv)
    assert "teacher sage" in a.card.recipe


def test_prompts_alone_are_answered_by_the_teacher(model, monkeypatch):
    import rwkvlab.model.tuning.teacher as teacher

    monkeypatch.setattr(teacher, "LONGEST", 5)
    prompts = [{"prompt": f"{i}>"} for i in range(40)]
    said = model.generate_batch([p["prompt"] for p in prompts], model.read(LONG), temperature=0, max_tokens=5)
    assert len({g.tokens for g in said}) > 1
    seen = [[], []]
    a = tune(model, prompts, steps=3, lr=0.1, batch=40, teacher=LONG, on_step=seen[0].append)
    assert a.wkv.any() and "40 examples" in a.card.recipe
    # what came to no end has none that counts: five counted tokens a row, and the same loss by hand
    total = 0.0
    for prompt, g in zip(prompts, said, strict=True):
        ids = model.encode(prompt["prompt"])
        both = [model.forward([*ids, *g.tokens], start).logits[0].double() for start in (None, model.read(LONG))]
        ends = g.finish == "end"
        zero, sage = (x[len(ids) - 1 : None if ends else -1].log_softmax(-1) for x in both)
        total += float((sage.exp() * (sage - zero)).sum())
    count = sum(len(g.tokens) + (g.finish == "end") for g in said)
    assert seen[0][0].loss == pytest.approx(total / count, rel=1e-4)


def test_without_a_teacher_nobody_answers_prompts(model):
    with pytest.raises(TuneError, match=r"examples\[0\]: need a \(prompt, answer\) pair"):
        tune(model, [{"prompt": "a>"}])
    with pytest.raises(TuneError, match=r"examples\[1\]: the prompt needs at least one token"):
        tune(model, [{"prompt": "a>"}, {"prompt": ""}], teacher=LONG)


def test_a_teacher_that_cannot_be_is_refused(make, model):
    for bad in ("", 5, ["a"]):
        with pytest.raises(ArgError, match="teacher: need a prompt that is not empty, or a State"):
            tune(model, PAIRS, teacher=bad)
    with pytest.raises(MismatchError):
        tune(model, PAIRS, teacher=make(seed=1).zero())
    for weight in (0, 1.5, float("nan")):
        with pytest.raises(ArgError, match="teacher_weight"):
            tune(model, PAIRS, teacher=LONG, teacher_weight=weight)
    with pytest.raises(ArgError, match="teacher_weight: needs teacher"):
        tune(model, PAIRS, teacher_weight=0.5)


def test_a_checkpoint_knows_its_teacher(model, tmp_path):
    from rwkvlab.errors import ResumeError

    tune(model, PAIRS, steps=2, teacher=LONG, checkpoint=tmp_path / "run")
    with pytest.raises(ResumeError, match="teacher: "):
        tune(model, PAIRS, steps=2, teacher=State(model.read(LONG).wkv, like=model), checkpoint=tmp_path / "run")
    with pytest.raises(ResumeError, match="teacher_weight: "):
        tune(model, PAIRS, steps=2, teacher=LONG, teacher_weight=0.5, checkpoint=tmp_path / "run")
