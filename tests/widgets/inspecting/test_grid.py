import threading

import numpy as np
import pytest
import torch
import traitlets

from rwkvlab.errors import ArgError, MismatchError
from rwkvlab.measure.distance import head_distance
from rwkvlab.measure.spectrum import spectrum
from rwkvlab.states.state import State
from rwkvlab.widgets.inspecting.grid import StateGrid


def state(*shape, seed=0, name=""):
    return State(torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).named(name)


def matrices(grid):
    return np.frombuffer(grid._head["data"], dtype=np.float32).reshape(grid._head["shape"])


def maps(grid):
    return np.frombuffer(grid._maps["data"], dtype=np.float32).reshape(grid._maps["shape"])


def test_the_bytes_of_the_chosen_head_are_sent_the_right_way_round():
    one = state(3, 4, 5, 7)
    grid = StateGrid(one, at=(2, 1))
    assert grid._head["shape"] == [1, 5, 7] and grid._head["at"] == [2, 1]
    assert np.array_equal(matrices(grid)[0], one.wkv[2, 1].numpy())
    grid.selected = (0, 3)
    assert grid._head["at"] == [0, 3]
    assert np.array_equal(matrices(grid)[0], one.wkv[0, 3].numpy())
    assert len(grid._head["data"]) == 4 * 5 * 7, "no more than the chosen head"


def test_a_square_head_is_not_transposed():
    one = state(1, 1, 4, 4)
    assert matrices(StateGrid(one))[0][1, 3] == one.wkv[0, 0, 1, 3] != one.wkv[0, 0, 3, 1]


def test_the_map_shows_the_norm_of_each_head():
    one = state(3, 4, 5, 7, name="emoji")
    grid = StateGrid(one)
    assert np.allclose(maps(grid)[0], one.wkv.flatten(2).norm(dim=2), rtol=1e-6)
    assert grid._maps["maps"][0]["name"] == "emoji" and "norm" in grid._maps["maps"][0]["what"]
    assert grid._maps["maps"][0]["low"] == 0


def test_two_states_are_shown_with_their_difference_on_one_scale():
    one, two = state(2, 3, 4, 6), state(2, 3, 4, 6, seed=1)
    grid = StateGrid(one, two, at=(1, 2))
    first, second, change = matrices(grid)
    assert np.array_equal(change, (two.wkv - one.wkv)[1, 2].numpy())
    assert np.array_equal(first, one.wkv[1, 2].numpy()) and np.array_equal(second, two.wkv[1, 2].numpy())
    assert len({part["limit"] for part in grid._head["parts"]}) == 1
    shown = grid._maps["maps"]
    assert shown[0]["high"] == shown[1]["high"] != shown[2]["high"]
    assert shown[0]["high"] == pytest.approx(maps(grid)[:2].max())
    grid.own_scale = True
    limits = [part["limit"] for part in grid._head["parts"]]
    assert limits[0] == limits[1] != limits[2]


def test_what_lies_beyond_the_scale_is_counted():
    wkv = torch.full((1, 1, 64, 64), 0.5)
    wkv[0, 0, 3, 4], wkv[0, 0, 5, 6] = 100.0, torch.nan
    part = StateGrid(State(wkv))._head["parts"][0]
    assert part["limit"] == 0.5 and part["note"] == "scale covers 99.5 % of the entries; 1 beyond; 1 NaN"
    assert StateGrid(State(torch.zeros(1, 1, 2, 2)))._head["parts"][0]["note"] == "scale covers all entries"


def test_a_small_difference_says_so():
    one = state(1, 1, 16, 16)
    notes = [StateGrid(one, other)._head["parts"][2]["note"] for other in (one * 1.01, one * 1.0, one * 2.0)]
    assert notes[0].endswith("small on this scale") and notes[1].endswith("nothing differs")
    assert notes[2] == "scale covers all entries" or notes[2].endswith("beyond")


@pytest.mark.parametrize(
    "place", [(2, 0), (0, -1), (0, 3), (0,), (0, 0, 0), "00", None, 3, (0.5, 0), (True, 0), (0, "1")]
)
def test_a_place_that_is_not_there_is_refused_and_nothing_changes(place):
    grid = StateGrid(state(2, 3, 4, 4), at=(1, 1))
    with pytest.raises(ArgError, match=r"selected|layer|head"):
        grid.selected = place
    assert grid.selected == (1, 1) and grid._head["at"] == [1, 1]
    with pytest.raises(ArgError):
        StateGrid(state(2, 3, 4, 4), at=place)


def test_a_late_click_on_a_head_that_went_changes_nothing():
    grid = StateGrid(state(2, 3, 4, 4), at=(1, 1))
    with pytest.raises((ArgError, traitlets.TraitError)):
        grid.set_state({"selected": [7, 0]})  # as the page sends it
    assert grid.selected == (1, 1) and grid._head["at"] == [1, 1]
    grid.set_state({"selected": [1, 2]})
    assert grid.selected == (1, 2) and grid._head["at"] == [1, 2]


def test_what_is_no_state_and_what_does_not_fit_is_refused():
    with pytest.raises(ArgError, match="need a State, got 'str'"):
        StateGrid("emoji.pth")
    with pytest.raises(ArgError, match="other"):
        StateGrid(state(1, 1, 2, 2), 3)
    with pytest.raises(MismatchError, match=r"\[2, 1, 2, 2\] and \[1, 1, 2, 2\]"):
        StateGrid(state(2, 1, 2, 2), state(1, 1, 2, 2))
    with pytest.raises(ArgError, match="no heads"):
        StateGrid(State(torch.zeros(0, 1, 2, 2)))


def test_other_states_are_shown_in_one_step_and_the_choice_stays_inside():
    grid = StateGrid(state(4, 4, 3, 3), at=(3, 2))
    grid.show(state(2, 6, 3, 5), state(2, 6, 3, 5, seed=1))
    assert grid.selected == (1, 2) and grid._head["shape"] == [3, 3, 5] and maps(grid).shape == (3, 2, 6)
    with pytest.raises(MismatchError):
        grid.show(state(2, 6, 3, 5), state(2, 2, 3, 5))
    assert len(grid.states) == 3 and grid.states[0].wkv.shape == (2, 6, 3, 5)


def test_maps_are_coloured_by_tables():
    one, two = state(2, 3, 4, 6), state(2, 3, 4, 6, seed=1)
    grid = StateGrid(one, two)
    table = head_distance(one, two)
    grid.overview(spectrum(one), spectrum(two), table, value="effective_rank", last="cosine")
    assert np.allclose(maps(grid)[2].ravel(), table["cosine"])
    assert np.allclose(maps(grid)[1].ravel(), spectrum(two)["effective_rank"])
    last = grid._maps["maps"][2]
    assert last["what"] == "cosine (-1 to 1)" and last["low"] == -last["high"]
    grid.overview()
    assert [one["what"] for one in grid._maps["maps"]] == ["Frobenius norm (state units)"] * 3
    with pytest.raises(ArgError, match="need 3 tables"):
        grid.overview(table)
    with pytest.raises(MismatchError, match="overview"):
        StateGrid(state(1, 1, 2, 2)).overview(table, value="cosine")


def test_infinite_and_missing_numbers_are_told():
    table = spectrum(state(1, 4, 3, 3))[["layer", "head"]].assign(half_life=[3.0, np.inf, np.nan, 5.0])
    grid = StateGrid(state(1, 4, 3, 3))
    grid.overview(table)
    told = grid._maps["maps"][0]
    assert told["note"] == "scale covers all heads; 1 without a number; 1 not within the text" and told["high"] == 5


def test_hostile_names_are_only_ever_text():
    grid = StateGrid(state(1, 1, 2, 2, name="<img src=x onerror=alert(1)>\x1b[31m\u202e 你好" + "x" * 500))
    name = grid._maps["maps"][0]["name"]
    assert "\x1b" not in name and "\u202e" not in name and "你好" in name and len(name) < 60
    script = str(grid._esm)
    assert len(script) > 1000 and "innerHTML" not in script and "insertAdjacent" not in script and "http" not in script
    assert "import " not in script and "url(" not in str(grid._css) and "@import" not in str(grid._css)


def test_the_colours_are_those_of_the_plots():
    from matplotlib import colormaps

    table = np.frombuffer(StateGrid(state(1, 1, 2, 2))._colours, dtype=np.uint8).reshape(3, 256, 3)
    assert table[0].tolist() == (np.array(colormaps["RdBu_r"](range(256), bytes=True))[:, :3]).tolist()
    assert table[1, 128].sum() < 150, "on dark the middle is dark"


def test_a_page_without_a_kernel_shows_a_picture():
    for states in ((state(2, 3, 4, 6, name="a$b$"),), (state(2, 3, 4, 6), state(2, 3, 4, 6, seed=1))):
        data = StateGrid(*states)._repr_mimebundle_()
        assert len(data["image/png"]) > 1000 and "application/vnd.jupyter.widget-view+json" in data


def test_choices_from_two_threads_end_with_the_one_that_is_chosen():
    one = state(8, 8, 4, 4)
    grid = StateGrid(one)

    def choose(start):
        for at in range(200):
            grid.selected = ((at + start) % 8, at % 8)

    threads = [threading.Thread(target=choose, args=(start,)) for start in (0, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tuple(grid._head["at"]) == grid.selected
    assert np.array_equal(matrices(grid)[0], one.wkv[grid.selected].numpy())


def test_a_chinese_name_is_drawn_without_a_warning(recwarn):
    StateGrid(state(1, 1, 2, 2, name="文言文"), state(1, 1, 2, 2, seed=1, name="挂载")).snapshot()
    assert not [str(one.message) for one in recwarn if "Glyph" in str(one.message)]
