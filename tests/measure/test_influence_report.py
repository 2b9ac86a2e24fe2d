import numpy as np
import pandas as pd
import pytest

from rwkvlab.errors import ArgError
from rwkvlab.measure.influence_report import RANDOM, STATE, Influence


def report(kl, control=None, lives=(10.0, 40.0, 30.0), name="sort"):
    """A report on a text whose KL at each token is given."""
    kl = np.asarray(kl, dtype=float)
    control = kl if control is None else np.asarray(control, dtype=float)
    parts = [
        pd.DataFrame({"token": np.arange(1, len(kl) + 1), "piece": "a", "start": start, "kl": values})
        for start, values in ((STATE, kl), (RANDOM, control))
    ]
    half = pd.DataFrame({"layer": 1, "head": range(len(lives)), "half_life": lives})
    return Influence(pd.DataFrame(), half, pd.concat(parts, ignore_index=True), name, len(kl) + 1, 2)


def steps(*parts):
    return np.concatenate([np.full(count, value) for count, value in parts])


def test_it_is_gone_where_every_later_stretch_is_quiet():
    assert report(steps((100, 1.0), (100, 0.0))).gone == 100  # that stretch begins with one loud token: 3 %
    assert report(steps((100, 1.0), (100, 0.049))).gone == 101
    assert report(steps((100, 1.0), (100, 0.051))).gone is None
    back = steps((100, 1.0), (200, 0.0), (2, 1.0), (100, 0.0))
    assert report(back).gone == 302  # 1 of 32 is 3 %, 2 are 6 %
    assert report(np.zeros(200)).gone == 0
    assert report(steps((100, 0.0), (100, 1.0))).gone is None


def test_tokens_at_which_nothing_shows_do_not_make_it_gone():
    """The KL of a tuned state is near zero at most tokens and large at a few: a median would call it gone at once."""
    sparse = np.zeros(320)
    sparse[3:160:10] = 3.0
    assert np.median(sparse) == 0
    assert report(sparse).gone == 155  # the last of them is judged after 154 tokens


def test_the_stretch_is_shorter_in_a_short_text_and_some_are_too_short():
    assert [report(np.ones(n)).window for n in (5, 32, 64, 127, 128, 1000)] == [8, 8, 16, 31, 32, 32]
    assert report(steps((8, 1.0), (8, 0.0))).gone == 9
    for n in (1, 5, 15):
        short = report(steps((n, 1.0)))
        assert short.gone is None and short.short
        assert "cannot be said" in repr(short) and "too short to say" in repr(short)
    assert not report(np.ones(16)).short


def test_the_first_sentence_is_the_answer():
    gone = repr(report(steps((100, 1.0), (100, 0.0)), control=np.ones(200))).splitlines()
    assert gone[0].startswith("'sort' is gone after 100 tokens: from there on every 32 tokens have a mean KL")
    assert "5%" in gone[0] and "first 32" in gone[0]
    assert "for 30 tokens (median of 3 heads; longest 40, layer 1 head 1; in steps of 2)" in gone[1]
    assert "1 nats a token over the first 32, 0 over the last; below half of it after 86, gone after 100" in gone[2]
    assert gone[3].startswith("control") and gone[3].endswith("over the last; not gone")
    assert repr(report(np.ones(200))).startswith("'sort' is not gone within this text of 201 tokens")
    assert repr(report(np.zeros(200))).startswith("'sort' does not change")
    stays = repr(report(np.ones(200), lives=(np.inf, 3.0, np.inf, np.nan)))
    assert "keeps half of its norm to the end of the text (median of 3 heads; 2 to the end, layer 1 head 0" in stays


def test_half_of_the_effect_is_asked_for_in_the_same_way():
    found = report(steps((100, 1.0), (100, 0.3), (100, 0.0)))
    assert found.gone_from() == found.gone == 196  # 5 of 32 tokens at 0.3, the others at 0: 0.047
    assert found.gone_from(share=0.5) == 92  # 9 of 32 tokens at 1, the others at 0.3: 0.497
    with pytest.raises(ArgError, match="share"):
        found.gone_from(share=1)


def test_rounding_is_no_effect():
    noise = 1e-13 * (1 + np.random.default_rng(0).random(200))
    assert report(noise).gone == 0 and "does not change" in repr(report(noise))
    assert report(steps((100, 1.0)).tolist() + noise.tolist()).gone == 100


def test_a_state_without_a_name_has_none():
    assert repr(report(np.ones(200), name="")).startswith("The mounted state is not gone")


def test_html_says_the_same_and_a_name_cannot_act():
    found = report(np.ones(200), name="<b>\x1b[31m$x$")
    page = found._repr_html_()
    assert "&lt;b&gt;\\x1b[31m$x$" in page and "mathjax_ignore" in page and page.count("<li>") == 3
    assert "\x1b" not in page + repr(found)
    with pytest.raises(ArgError, match="start"):
        found.gone_from("zero")
