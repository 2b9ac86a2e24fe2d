"""The batches of the bundled worlds: what the documents say, what is held out, what counts."""

import zlib

import numpy as np
import pytest
import torch

from rwkvlab.bundled.corpus import APART, SOURCES
from rwkvlab.bundled.mix import KINDS, Mix, source_tag
from rwkvlab.bundled.mix import main as encode_all
from rwkvlab.bundled.vocabulary import main as make_vocabulary
from rwkvlab.errors import ArgError, FormatError
from rwkvlab.tasks.builtin import HELD_OUT, MICRO_FUNCTIONS
from rwkvlab.tasks.cities import CITIES
from rwkvlab.tasks.styleworld import (
    LANGUAGES,
    PHRASINGS,
    STYLE_NAMES,
    answer,
    combinations,
    has_style,
    question,
    style_tag,
    turn,
)

LENGTHS = {"functions": 48, "world": 96, "text": 32}
LINES = {
    "tang": "城春草木深。",
    "song": "往事知多少。",
    "shakespeare": "Hamlet:\nTo be.",
    "austen": "She was handsome.",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    for source in SOURCES:
        for end in ("", ".held"):
            documents = [f"{LINES[source]} {end}{i}\n\n{LINES[source]}" for i in range(60)]
            (folder / f"{source}{end}.txt").write_text(APART.join(documents) + "\n", "utf-8")
    make_vocabulary(["--data", str(folder)])
    return folder


@pytest.fixture(scope="module")
def mix(folder):
    return Mix(folder, folder / "vocab.txt")


@pytest.fixture(scope="module")
def said():
    """By held_out: what a question asks, its combination and language, without the mark at its end."""
    return {
        held_out: {
            question(c, language, phrasing).rstrip("?"): (c, language)
            for c in combinations(held_out=held_out)
            for language in LANGUAGES
            for phrasing in range(PHRASINGS)
        }
        for held_out in (False, True)
    }


def rows(mix, batch):
    """The text of each row up to where its weights end, and the same for what has weight 1."""
    for tokens, targets, weights in zip(*batch, strict=True):
        ids = [*tokens[:1].tolist(), *targets.tolist()]
        size = int(weights.count_nonzero()) + 1
        assert not weights[size - 1 :].any() and not any(ids[size:])
        counted = [index for index, weight in zip(ids[1:], weights.tolist(), strict=True) if weight == 1]
        yield mix.tokenizer.decode(ids[:size]), mix.tokenizer.decode(counted), ids[:size]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_a_function_of_the_arguments(mix, kind):
    batch = mix.draw(3, 5, kind, 4, LENGTHS[kind])
    assert all(part.shape == (4, LENGTHS[kind]) for part in batch)
    assert batch.tokens.dtype == batch.targets.dtype == torch.int64 and batch.weights.dtype == torch.float32
    assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    again = mix.draw(3, 5, kind, 4, LENGTHS[kind])
    assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True))
    for other in ((4, 5, kind, 4), (3, 6, kind, 4)):
        assert not torch.equal(batch.tokens, mix.draw(*other, LENGTHS[kind]).tokens)
    assert not torch.equal(batch.tokens, mix.draw(3, 5, kind, 4, LENGTHS[kind], held_out=True).tokens)
    assert set(batch.weights.unique().tolist()) <= {0.0, np.float32(0.1), 1.0}


@pytest.mark.parametrize("held_out", [False, True])
def test_pairs_are_of_one_function_and_only_answers_count(mix, held_out):
    seen, tags = set(), 0
    for text, counted, ids in rows(mix, mix.draw(0, 0, "functions", 400, 48, held_out=held_out)):
        tag, _, body = text.rpartition(":")
        pairs = [line.split(">") for line in body.split("\n")]
        fit = {name for name, function in MICRO_FUNCTIONS.items() if all(function(q) == a for q, a in pairs)}
        assert len(fit) == 1 and tag in ("", *fit) and ids[-1] == 0
        assert counted == "\n".join(a for _, a in pairs)
        assert all((zlib.crc32(q.encode()) % HELD_OUT == 0) == held_out for q, _ in pairs)
        seen.add((*fit, len(pairs), bool(tag)))
        tags += bool(tag)
    assert len(seen) == 6 * 3 * 2 and 150 < tags < 250


@pytest.mark.parametrize("held_out", [False, True])
def test_talks_are_true_and_only_answers_count(mix, said, held_out):
    turns_seen, tags, leaning, plain = [], 0, 0, 0
    for text, counted, ids in rows(mix, mix.draw(0, 1, "world", 400, 96, held_out=held_out)):
        tag, _, body = text.rpartition(":\n") if not text.startswith("User: ") else ("", "", text)
        assert ids[-1] == 0 and ids == [*mix.tokenizer.encode(text), 0]
        turns = [part.removesuffix("\n\n").split("\n\nAssistant: ") for part in body.split("User: ")[1:]]
        assert "".join(turn(*pair) for pair in turns) == body
        assert counted == "".join(f" {reply}\n\n" for _, reply in turns)
        asked = [said[held_out][q.rstrip("?？")] for q, _ in turns]
        fit = [s for s in STYLE_NAMES if all(answer(c, s, w) == r for (c, w), (_, r) in zip(asked, turns, strict=True))]
        assert fit and (not tag or tag in fit) and len({words for _, words in asked}) == 1
        assert all(has_style(reply, fit[0], asked[0][1]) for _, reply in turns)
        turns_seen.append(len(turns))
        tags += bool(tag)
        if not tag:
            plain += 1
            leaning += STYLE_NAMES[list(CITIES).index(asked[0][0].a) % 6] in fit
    assert min(np.bincount(turns_seen)[1:]) > 80 and 150 < tags < 250
    assert 0.6 < leaning / plain < 0.82


def test_a_talk_has_as_many_turns_as_fit(mix):
    counts = np.bincount([text.count("User: ") for text, _, _ in rows(mix, mix.draw(0, 2, "world", 300, 48))])
    full = np.bincount([text.count("User: ") for text, _, _ in rows(mix, mix.draw(0, 2, "world", 300, 191))])
    assert counts[0] == full[0] == 0 and counts[1] > full[1] and counts[3] < full[3] / 2
    assert all(ids[-1] == 0 for _, _, ids in rows(mix, mix.draw(0, 2, "world", 300, 48)))


@pytest.mark.parametrize("held_out", [False, True])
def test_windows_are_full_and_of_one_source_from_the_beginning_of_a_paragraph(mix, folder, held_out):
    seen = {}
    for text, counted, ids in rows(mix, mix.draw(0, 3, "text", 80, 32, held_out=held_out)):
        source = next(s for s in SOURCES if LINES[s] in text)
        tagged = text.startswith(source_tag(source))
        body = text.removeprefix(source_tag(source))
        assert len(ids) == 33 and body.startswith(LINES[source])
        assert counted in body and len(body) - len(counted) <= 12
        whole = (folder / f"{source}{'.held' if held_out else ''}.txt").read_text("utf-8").replace(APART, "\n\n")
        assert body.rstrip("\ufffd") in whole
        seen.setdefault(source, set()).add(tagged)
    assert seen == {source: {True, False} for source in SOURCES}


def test_arrays_that_were_saved_give_the_same_batches(mix, folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    encode_all(["--data", str(tmp_path)])
    (tmp_path / "tang.txt").write_text("gone", "utf-8")
    other = Mix(tmp_path, tmp_path / "vocab.txt")
    for kind in KINDS:
        pair = zip(mix.draw(0, 9, kind, 8, LENGTHS[kind]), other.draw(0, 9, kind, 8, LENGTHS[kind]), strict=True)
        assert all(torch.equal(a, b) for a, b in pair)
    next(tmp_path.glob("tang.*.npy")).write_bytes(b"\x93NUMPY")
    with pytest.raises(FormatError, match=r"tang\..*npy: no array"):
        Mix(tmp_path, tmp_path / "vocab.txt")


def test_tags_of_styles_and_sources_are_lines():
    assert style_tag("json") == "json:\n" and source_tag("tang") == "tang:\n"


def test_a_batch_that_cannot_be_is_refused(mix):
    for arguments in ((0, 0, "poems", 1, 48), (0, 0, "world", 0, 48), (0, 0, "text", 1, 15), (-1, 0, "text", 1, 48)):
        with pytest.raises(ArgError, match=r"kind|rows|length|seed"):
            mix.draw(*arguments)
    with pytest.raises(ArgError, match="longer than the source"):
        mix.draw(0, 0, "text", 1, 100_000)
