import re

import pandas as pd
import pytest

from rwkvlab.measure.comparing.strip import EDGES, STYLE, Piece, as_pieces, legend, strip, strip_rows, summary


def tokens(*items, **columns):
    """Return rows of tokens of (piece, kl, same)."""
    rows = [(*columns.values(), at, 100 + at, piece, kl, 1.5, 2.5, same) for at, (piece, kl, same) in enumerate(items)]
    names = [*columns, "token", "id", "piece", "kl", "surprise", "surprise_baseline", "same"]
    return pd.DataFrame(rows, columns=names)


def test_tokens_that_share_a_character_are_one_piece_with_all_their_numbers():
    some = as_pieces(tokens(("a", 0.5, True), ("", 0.1, True), ("", 4.0, False), ("文", 0.2, True), ("", 0.0, True)))
    assert [(one.text, one.same, one.kl) for one in some] == [("a", True, 0.5), ("文", False, 4.0), ("▯", True, 0.0)]
    assert some[0].note == "token 0, id 100: KL 0.5 nats, surprise 1.5, baseline 2.5"
    assert some[1].note.startswith("3 tokens: ") and all(f"KL {kl} nats" in some[1].note for kl in ("0.1", "4", "0.2"))


def test_shades_are_steps_of_one_scale_that_the_legend_shows():
    kls = [0.0, 0.0299, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 1000.0]
    page = strip([Piece("x", True, kl) for kl in kls])
    assert re.findall(r'class="k(\d)"', page) == list("001234566")
    assert re.findall(r'class="k(\d)"', legend("zero")) == list("0123456")
    assert all(f"{edge:g}" in legend("zero") for edge in EDGES) and "nats" in legend("zero")
    bars = [int(bar) for bar in re.findall(r"\.k\d\{.*?inset 0 -(\d)px", STYLE)]
    assert bars == sorted(set(bars)) and len(bars) == len(EDGES) + 1  # not colour alone


def test_what_differs_is_marked_in_runs_and_nothing_where_it_is_plain():
    some = [Piece("a"), Piece(" b", False), Piece(" c", False), Piece("d"), Piece("e", False)]
    assert strip(some) == "<div>a<mark> b c</mark>d<mark>e</mark></div>"
    assert strip(some, plain=True) == "<div>a b cde</div>"
    assert strip([]) == ""


def test_ends_of_lines_are_seen_and_the_last_ones_take_no_room():
    some = [Piece("a\n"), Piece("\n"), Piece("\tb.\n"), Piece("\n\n")]
    assert strip(some) == "<div>a⏎\n⏎\n⇥b.⏎⏎⏎</div>"
    assert strip([Piece("\n"), Piece("\n\n")]) == "<div>⏎⏎⏎</div>"


def test_the_summary_counts_in_words():
    rows = tokens(("a", 0.5, True), ("b", 2.0, True))
    assert summary(rows, "stop") == "2 tokens, stop; KL 2.5 nats, largest 2 at token 1"
    assert summary(rows, plain=True) == "2 tokens" and summary(rows[:1], plain=True) == "1 token"
    assert summary(rows[:0], "end") == "0 tokens, end"


def side_by_side(own, arms=("zero", "a")):
    """Return the rows of a grid for the answers `own` of some arms; the first is the baseline's."""
    part = pd.DataFrame({"prompt": "p", "sample": 0, "state": list(own), "finish": "end"})
    texts = {}
    for arm, text in own.items():
        for along, items in (("own", text), ("baseline", own["zero"])):
            if items:
                texts["p", arm, 0, along] = tokens(*items)
    return strip_rows("p", part, arms, texts, tokens())


def test_the_baselines_answer_is_read_from_every_start_that_wrote_something_else():
    x, y = [("x", 0.0, True)], [("x", 0.2, True), ("y", 5.0, False)]
    first, second = side_by_side({"zero": x, "a": y, "b": x}, ("zero", "a", "b"))
    assert first[0] == "p" and second[0] == ""
    assert "<span" not in first[1][0] and first[1][1].count("<span") == 2 and first[1][2].count("<span") == 1
    assert "read from the other starts" in second[1][0] and second[1][1].count("<span") == 1
    assert "as above" in second[1][2]


@pytest.mark.parametrize("answer", [[("x", 0.0, True)], []])
def test_there_is_no_second_row_where_all_wrote_the_same_or_the_baseline_nothing(answer):
    ((_, cells),) = side_by_side({"zero": answer, "a": answer})
    assert len(cells) == 2
    if not answer:
        assert len(side_by_side({"zero": [], "a": [("x", 1.0, False)]})) == 1
        assert "0 tokens, end" in cells[0]


def test_an_arm_that_was_interrupted_has_an_empty_cell():
    ((_, cells),) = side_by_side({"zero": [("x", 0.0, True)]})
    assert cells[1] == ""
