"""The evidence asks what is held out, from the arms that it names, and counts what it says it counts."""

import json
import zlib

import numpy as np
import pytest
import torch

from rwkvlab.bundled import evidence, evidence_arms, evidence_asking
from rwkvlab.bundled.evidence import write_figures, write_tables
from rwkvlab.bundled.evidence_arms import ARMS, PLAIN, Arm, arms_of, asks_of, judge, questions, run_arms
from rwkvlab.bundled.evidence_asking import Ask, Said, ask, begun, token_logprobs
from rwkvlab.bundled.evidence_tables import card_summary, musts
from rwkvlab.bundled.evidence_texts import HEAD, run_texts
from rwkvlab.bundled.shelf import bundled, open_world
from rwkvlab.bundled.skills import FUNCTIONS, SKILLS, file_name, windows
from rwkvlab.bundled.world_recipe import write_card, write_states
from rwkvlab.model.random_weights import random_weights
from rwkvlab.shapes import Dims
from rwkvlab.states.state import State
from rwkvlab.tasks.styleworld import combinations

BY_NAME = {skill.name: skill for skill in SKILLS}
TEXTS = {
    "tang": "白日依山尽，黄河入海流。\n欲穷千里目，更上一层楼。\n\n",
    "song": "明月几时有，把酒问青天。\n不知天上宫阙，今夕是何年。\n\n",
    "shakespeare": "Hamlet:\nTo be, or not to be, that is the question.\n\n",
    "austen": "It is a truth universally acknowledged, that a single man must be in want of a wife.\n\n",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of texts as `corpus` writes it: each source has several documents, the held-out ones with a mark."""
    folder = tmp_path_factory.mktemp("data")
    for source, text in TEXTS.items():
        (folder / f"{source}.txt").write_text(((text * 12).strip("\n") + "\n\n\n") * 4, "utf-8")
        (folder / f"{source}.held.txt").write_text((("# " + text * 12).strip("\n") + "\n\n\n") * 4, "utf-8")
    return folder


@pytest.fixture(scope="module")
def states(tiny):
    def make(seed):
        generator = torch.Generator().manual_seed(seed)
        return State(torch.randn(2, 2, 16, 16, generator=generator), like=tiny)

    return {(skill, seed): make(100 * at + seed) for at, skill in enumerate(SKILLS) for seed in (0, 1)}


def test_an_exact_answer_is_what_greedy_writing_gives_and_then_its_end(tiny):
    prompt = tiny.encode("ab>")
    wrote = tiny.generate(prompt, temperature=0, max_tokens=5, ban=[0]).tokens
    stop = tiny.tokenizer.decode(wrote[4:])
    assert stop not in (tiny.tokenizer.decode([token]) for token in wrote[:4])
    other = (*wrote[:3], (wrote[3] + 1) % 256 + 1)
    asks = [Ask(prompt, wrote[:4]), Ask(prompt, other), Ask(prompt, wrote[:3]), Ask(tiny.encode("longer>"), wrote[:4])]
    said = ask(tiny, asks, stop)
    assert [one.exact for one in said] == [True, False, False, False]
    assert said[0].text is None and said[1].text == said[2].text == tiny.tokenizer.decode(wrote[:4])
    expected = tiny.score([prompt] * 3, [list(one.answer) for one in asks[:3]])["logprob"]
    assert [one.logprob for one in said[:3]] == pytest.approx(expected.tolist(), rel=1e-4)


def test_what_is_written_is_what_generate_batch_writes(tiny, states, monkeypatch):
    prompts = [tiny.encode(text) for text in ("a", "bc", "bc", "User: hello\n\nAssistant:", "d" * 30)]
    starts = [None, states[SKILLS[0], 0], None, states[SKILLS[1], 0], None]
    free = [one.text for one in tiny.generate_batch(prompts, starts, temperature=0, max_tokens=21)]
    # a character that ends some rows, and not at the same place
    found = {char: {text.find(char) for text in free} for char in "".join(free) if " " < char < "~"}
    stop = max(found, key=lambda char: len(found[char]))
    assert len(found[stop]) > 1
    said = ask(tiny, [Ask(p, tiny.encode("no"), s) for p, s in zip(prompts, starts, strict=True)], stop, 21)
    wrote = tiny.generate_batch(prompts, starts, temperature=0, max_tokens=21, stop=stop)
    assert [one.text for one in said] == [one.text for one in wrote]
    # as on a GPU: batches are filled up to a power of two, and that changes nothing
    assert [evidence_asking.size_of(rows, "cuda") for rows in (1, 2, 5, 64, 65)] == [1, 2, 8, 64, 128]
    monkeypatch.setattr(evidence_asking, "size_of", lambda rows, _: 1 << (rows - 1).bit_length())
    filled = ask(tiny, [Ask(p, tiny.encode("no"), s) for p, s in zip(prompts, starts, strict=True)], stop, 21)
    assert [one.text for one in filled] == [one.text for one in said]
    assert ask(tiny, [Ask(prompts[0], tiny.encode("no"))], "e", 0)[0].text is None


def test_what_was_read_starts_the_prompt_with_its_token_shifts_or_without(tiny):
    before, prompt, answer = (tuple(tiny.encode(text)) for text in ("emoji:\n", "Where?", " Here"))
    asks = [Ask(before + prompt, answer), Ask(prompt, answer, None, before)]
    asks += [Ask(prompt, answer, None, before, shifts=False), Ask(prompt, answer)]
    whole, read, bare, alone = (one.logprob for one in ask(tiny, asks, "\n"))
    assert read == pytest.approx(whole, rel=1e-5)
    assert abs(bare - whole) > 1e-3 and abs(bare - alone) > 1e-3
    state = tiny.read(list(before))
    flow = begun(tiny, asks)
    for row, shift in ((1, state.att_shift), (2, 0 * state.att_shift)):
        torch.testing.assert_close(torch.stack(flow.att)[:, row], shift, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.stack(flow.wkv)[:, row], state.wkv, rtol=1e-4, atol=1e-5)


def test_questions_are_held_out_and_their_shots_are_not():
    held, known = combinations(held_out=True), combinations(held_out=False)
    for skill in SKILLS[:14]:
        asked = questions(skill, 12, 3)
        assert len({one.prompt for one in asked}) == 12
        for one in asked:
            if skill.family == "function":
                assert zlib.crc32(one.prompt[:-1].encode()) % 8 == 0
                shots = [line.split(">") for line in one.shots.strip().split("\n")]
                assert all(zlib.crc32(query.encode()) % 8 and FUNCTIONS[skill.name](query) == a for query, a in shots)
                assert FUNCTIONS[skill.name](one.prompt[:-1]) == one.answer and len(shots) == 2
            else:
                assert one.about[0] in held and one.about[0] not in known
                assert one.shots.count("User:") == one.shots.count("\n\nUser:") + 1 == 2 and one.shots.endswith("\n\n")


def test_every_task_of_a_family_and_every_arm_asks_the_same(tiny, states):
    for family in ("function", "style"):
        asked = {skill: questions(skill, 5, 0) for skill in SKILLS if skill.family == family}
        assert len({tuple(one.prompt for one in some) for some in asked.values()}) == 1
        assert len(asked) == 7
        for skill, some in asked.items():
            prompts = [tuple(tiny.encode(one.prompt)) for one in some]
            for arm in arms_of(skill, states, [0, 1], draws=1):
                found = asks_of(lambda text: tuple(tiny.encode(text)), arm, some, family)
                assert [one.prompt[-len(p) :] for one, p in zip(found, prompts, strict=True)] == prompts
                assert (arm.name in ("tag", "shots")) == all(
                    len(one.prompt) > len(p) for one, p in zip(found, prompts, strict=True)
                )
                assert arm.name.startswith("read") == all(len(one.before) > 0 for one in found)
                assert arm.name.endswith("no shifts") == (not all(one.shifts for one in found))


def test_the_arms_are_what_their_names_say(states):
    skill = BY_NAME["emoji"]
    arms = list(arms_of(skill, states, [0, 1], draws=3))
    assert list(dict.fromkeys(arm.name for arm in arms if arm.name not in ("random", "wrong"))) == [
        name for name in ARMS if name not in ("random", "wrong")
    ]
    own = states[skill, 1]
    for arm in arms:
        if arm.name in PLAIN:
            assert arm.state is None and arm.seed == -1
        elif arm.seed == 1:
            made = {"state": own.wkv, "transposed": own.wkv.mT, "negative": -own.wkv}.get(arm.name)
            assert made is None or torch.equal(arm.state.wkv, made)
            assert arm.name == "state" or not torch.equal(arm.state.wkv, own.wkv)
    wrong = {arm.which: arm.state for arm in arms if arm.name == "wrong" and arm.seed == 1}
    assert set(wrong) == {name for name, one in BY_NAME.items() if one.family == "style"} - {"emoji"}
    assert all(state is states[BY_NAME[name], 1] for name, state in wrong.items())
    draws = [arm.state for arm in arms if arm.name == "random"]
    spectrum = torch.linalg.svdvals(states[skill, 0].wkv)
    assert len(draws) == 3 and len({float(state.wkv.sum()) for state in draws}) == 3
    assert all(torch.allclose(torch.linalg.svdvals(state.wkv), spectrum, atol=1e-4) for state in draws)
    (moved,) = (arm.state for arm in arms if arm.name == "shuffled" and arm.seed == 1)
    assert sorted(moved.wkv.flatten(2).sum(-1).flatten().tolist()) == sorted(
        own.wkv.flatten(2).sum(-1).flatten().tolist()
    )


def test_style_and_content_are_judged_apart():
    skill, (one,) = BY_NAME["emoji"], questions(BY_NAME["emoji"], 1, 0)
    (plain,), (other,) = questions(BY_NAME["plain"], 1, 0), [questions(skill, 2, 0)[1]]
    assert judge(skill, one, Said(True, 0.0)) == {"exact": True, "style": True, "content": True}
    assert judge(skill, one, Said(False, 0.0, f" {one.answer} ")) == {"exact": True, "style": True, "content": True}
    assert judge(skill, one, Said(False, 0.0, plain.answer)) == {"exact": False, "style": False, "content": True}
    said = judge(skill, one, Said(False, 0.0, other.answer))
    assert (said["exact"], said["content"]) == (False, False)
    assert judge(BY_NAME["sort"], questions(BY_NAME["sort"], 1, 0)[0], Said(False, 0.0, None))["style"] is False


def test_texts_are_held_out_and_counted_in_bits_of_their_bytes(tiny, states, data):
    rows = run_texts(tiny, states, [0, 1], data, n=2, draws=1)
    first = windows(data, "austen", 2)[0]
    assert first.startswith("# It is a truth") and len(first) == 640
    ids = tiny.encode(first)[:256]
    own = rows[(rows["task"] == "austen") & (rows["arm"] == "state") & (rows["which"] == "song") & (rows["seed"] == 1)]
    whole, head, rest = (own[(own["window"] == 0) & (own["part"] == part)].iloc[0] for part in own["part"].unique())
    expected = tiny.score([ids[:1]], [ids[1:]], states[BY_NAME["song"], 1])["logprob"][0]
    assert whole["bits"] == pytest.approx(-expected / np.log(2), rel=1e-4)
    assert whole["bytes"] == len(tiny.tokenizer.decode(ids[1:]).encode()) == head["bytes"] + rest["bytes"]
    assert whole["bits"] == pytest.approx(head["bits"] + rest["bits"]) and head["bytes"] == HEAD - 1
    tagged = rows[(rows["task"] == "austen") & (rows["arm"] == "tag") & (rows["part"] == "all")]["bits"].iloc[0]
    tag = tiny.score([tiny.encode("austen:\n") + ids[:1]], [ids[1:]])["logprob"][0]
    assert tagged == pytest.approx(-tag / np.log(2), rel=1e-4)
    assert (token_logprobs(tiny, [Ask(ids)])[0] < 0).all()


def assert_the_card_holds_what_the_tables_hold(said, tables):
    """The means that were there, and beside each its interval; the log-probabilities; the first 100 tokens apart."""
    arms = tables["arms"].set_index(["arm", "task"])
    names = {"style right": "style", "content right": "content", "exact right": "exact"}
    for title, name in (names | {"log-probability of the answer (nats)": "logprob"}).items():
        means, ends = said[title], said[f"{title}: 95 % interval"]
        tasks = {"emoji", "list"} | ({"copy", "swap"} if name in ("exact", "logprob") else set())
        assert set(means) == set(ends) == set(ARMS) and all(
            set(row) == tasks for row in (*means.values(), *ends.values())
        )
        for arm, task in ((arm, task) for arm in ARMS for task in tasks):
            row = arms.loc[arm, task]
            assert means[arm][task] == round(row[name], 3)
            assert ends[arm][task] == [round(row[f"{name}_low"], 3), round(row[f"{name}_high"], 3)]
            assert ends[arm][task][0] <= means[arm][task] <= ends[arm][task][1]
    texts = tables["texts"].set_index(["part", "task", "arm", "which"])
    for title, part in (("", "all"), (", first 100 tokens", "first 100")):
        title = f"bits per byte, text by start{title}"
        row = texts.loc[part, "tang", "state", "song"]
        assert said[title]["tang"]["song"] == round(row["bits_per_byte"], 4)
        assert said[f"{title}: 95 % interval"]["tang"]["song"] == [round(row["low"], 4), round(row["high"], 4)]
        row = texts.loc[part, "tang", "no state", ""]
        assert said[title]["tang"]["no state"] == round(row["bits_per_byte"], 4)


@pytest.fixture
def world(tmp_path):
    """A folder as a bundled model's, of random weights, with a card and states of all skills but the sources."""
    folder = tmp_path / "my model"
    folder.mkdir()
    weights = random_weights(Dims("x070", L=2, H=2, C=32, K=16, V=16, ffn=64, vocab=257), dict.fromkeys("wavg", 4))
    torch.save({key: value.bfloat16() for key, value in weights.items()}, folder / "rwkv7.pth")
    tokens = [chr(i) if i < 0x80 else bytes([i]) for i in range(256)]
    lines = "".join(f"{i} {token!r} {len(token)}\n" for i, token in enumerate(tokens, 1))
    (folder / "vocab.txt").write_text(lines, "utf-8")
    made = State(torch.ones(2, 2, 16, 16), like=open_world(folder, "cpu"))
    write_states(
        {skill: made for skill in SKILLS if skill.family != "source"}, folder / "states", 5_000_000, "20261123"
    )
    write_card(folder, {"name": "rwkv7", "evidence": {"musts": [1, 2]}})
    return folder


def test_states_or_texts_that_are_missing_end_it_in_one_line_before_any_work(
    world, data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(evidence, "run_arms", lambda *_, **__: pytest.fail("asked"))
    out, work = tmp_path / "out", tmp_path / "work"
    (work / "seed-1").mkdir(parents=True)
    for skill in SKILLS[1:14]:
        name = file_name(skill, "x070", 5_000_000, "20261123")
        (work / "seed-1" / name).write_bytes((world / "states" / name).read_bytes())

    def said(*argv):
        assert evidence.main([*map(str, ("--model", world, "--out", out, "--device", "cpu", *argv))]) == 2
        told = capsys.readouterr()
        assert told.out == "" and told.err.startswith("evidence: error: ") and told.err.count("\n") == 1
        assert not out.exists()
        return told.err

    line = said("--work", work, "--seeds", 0, 1, 2)
    assert f"states of seed 1, 2 are missing (copy in '{work / 'seed-1'}')" in line
    made = f"python -m rwkvlab.bundled.world_recipe --model '{world}' --work {work} --seeds 0 1 2`"
    assert made in line and line.endswith("or ask the others alone: --seeds 0\n")
    assert "seed 1, 2, 3, 4 are missing (copy, reverse, sort, … in" in said()
    line = said("--seeds", 0, "--data", data)  # with texts, states of the sources are asked for too
    assert "seed 0 are missing (tang, song, shakespeare, … in" in line and f"--data {data} " in line
    assert "alone" not in line
    monkeypatch.setattr(evidence, "skill_of", lambda name: pytest.fail("looked for states"))
    assert "need a folder with rwkv7.pth or rwkv6.pth" in said("--model", tmp_path)
    monkeypatch.setattr(evidence, "_skills", lambda sources: [])
    monkeypatch.setattr(evidence, "skill_of", lambda name: None)
    assert "tang.held.txt: cannot be read" in said("--seeds", 0, "--data", tmp_path)


def test_the_card_is_written_where_it_is_asked_for_and_otherwise_left_alone(world, tmp_path, capsys):
    before, out = (world / "card.json").read_bytes(), tmp_path / "out"
    argv = ["--model", world, "--out", out, "--seeds", 0, "--n", 2, "--draws", 1, "--device", "cpu"]
    assert evidence.main([*map(str, argv)]) == 1  # a random model is never right
    assert (world / "card.json").read_bytes() == before and "card.json left as it was" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} >= {"arms.csv", "lifts.csv", "summary.json", "accuracy_styles.png"}
    assert evidence.main([*map(str, argv), "--card"]) == 1
    card = json.loads((world / "card.json").read_text("utf-8"))
    assert card["name"] == "rwkv7" and card["evidence"] == json.loads((out / "summary.json").read_text("utf-8"))
    ends = card["evidence"]["exact right: 95 % interval"]
    assert card["evidence"]["tuning seeds"] == [0] and len(ends["state"]) == 14


def test_the_whole_of_it_writes_tables_a_summary_and_figures(tiny, states, data, tmp_path):
    skills = [BY_NAME[name] for name in ("copy", "swap", "emoji", "list")]
    some = {key: state for key, state in states.items() if key[0] in skills}
    rows = run_arms(tiny, some, [0, 1], n=2, draws=2, skills=skills)
    assert set(rows["arm"]) == set(ARMS) and not rows.duplicated(["task", "arm", "seed", "which", "example"]).any()
    read, tag = (rows[rows["arm"] == arm]["logprob"].to_numpy() for arm in ("read tag", "tag"))
    np.testing.assert_allclose(read, tag, rtol=1e-4)
    tables = write_tables(tmp_path, rows, run_texts(tiny, states, [0, 1], data, n=2, draws=1))
    write_figures(tmp_path, tables)
    said = card_summary(tables, list(musts(rows)), 2, [0, 1])
    assert set(json.loads(json.dumps(said))["exact right"]) == set(ARMS)
    assert set(said["bits per byte, text by start"]["tang"]) == {"no state", "tag", *TEXTS}
    assert_the_card_holds_what_the_tables_hold(said, tables)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"arms.csv", "arms_by_seed.csv", "lifts.csv", "texts.csv", "margins.csv", "texts.png"} <= names
    assert {"accuracy_functions.png", "accuracy_styles.png"} <= names
    assert evidence_arms.SHOTS == 2 and Arm("tag").state is None


def test_on_a_model_that_knows_the_functions_the_arms_come_out_as_they_should():
    (model, first), (_, second) = bundled("micro"), bundled("micro", 1)
    skills = [skill for skill in SKILLS if skill.family == "function" and not skill.absent]
    states = {(skill, seed): shelf[skill.name] for seed, shelf in ((0, first), (1, second)) for skill in skills}
    rows = run_arms(model, states, [0, 1], n=40, draws=2, skills=skills)
    share = rows.groupby("arm")["right"].mean()
    assert share["state"] >= 0.97 and share["tag"] >= 0.97 and share["read tag"] == share["tag"]
    assert share["shots"] >= 0.7 and share["read shots"] == share["shots"] and share["no state"] <= 0.3
    assert share["wrong"] <= 0.02
    for name in ("random", "transposed", "shuffled"):
        assert abs(share[name] - share["no state"]) <= 0.05, name
    assert [one.holds for one in musts(rows)][:2] == [True, True]
    kept = rows[(rows["arm"] == "state") & (rows["seed"] == 1) & (rows["task"] == "sort")]
    prompts = [one.prompt for one in questions(BY_NAME["sort"], 40, 0)]
    said = model.generate_batch(prompts, second["sort"], temperature=0, max_tokens=10)
    assert kept["right"].tolist() == [one.text == "".join(sorted(p[:-1])) for one, p in zip(said, prompts, strict=True)]
