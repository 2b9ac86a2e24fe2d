"""What a run would read and need is told before it starts, and the run then does just that."""

import pytest

from rwkvlab.errors import ArgError, TuneError
from rwkvlab.model.tuning import start_tuning
from rwkvlab.model.tuning.plan import tuning_plan
from rwkvlab.model.tuning.teacher import LONGEST

PAIRS = [("a>", "bcd"), ("ba>", "x"), ("yes or no?", "yes"), ("q", "rst")]


def test_a_plan_counts_examples_tokens_and_the_bytes_that_the_run_then_expects(model):
    plan = tuning_plan(model, PAIRS, held_out=0.25, batch=2)
    job = start_tuning(model, PAIRS, held_out=0.25, batch=2, steps=1)
    job.wait()
    assert (plan.trained, plan.held_out, plan.batch, plan.unanswered) == (3, 1, 2, 0)
    assert plan.tokens == sum(len(asked) + len(told) + 1 for asked, told in PAIRS) and plan.longest == 14
    assert plan.memory == job.memory
    assert str(plan).startswith(
        f"3 examples to train on, 1 held out; {plan.tokens} tokens, the longest 14; batches of 2"
    )


def test_prompts_that_a_teacher_answers_are_counted_with_the_longest_answers(model):
    plan = tuning_plan(model, [{"prompt": "ab"}, ("a", "b")], teacher=True)
    assert plan.unanswered == 1 and plan.longest == 2 + LONGEST + 1
    assert "1 of them answered by the teacher first" in str(plan) and "at most" in str(plan)
    with pytest.raises(TuneError, match=r"examples\[0\]"):
        tuning_plan(model, [{"prompt": "ab"}])


def test_a_plan_refuses_what_tuning_refuses(model):
    with pytest.raises(ArgError, match="batch"):
        tuning_plan(model, PAIRS, batch=5)
    with pytest.raises(ArgError, match="held_out"):
        tuning_plan(model, PAIRS, held_out=1.5)
    with pytest.raises(TuneError, match="examples: empty"):
        tuning_plan(model, [])
