import ipywidgets
import pytest
import torch

from rwkvlab.errors import ArgError, MismatchError, PathError, RwkvLabError
from rwkvlab.states.files import save_state
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.state import State
from rwkvlab.widgets import StatePicker


def parts(picker):
    """The filter, the drop-down, the caption and, if there is one, the list of what is unusable."""
    return picker.children


@pytest.fixture
def states(random_state):
    return {name: random_state(name, seed) for seed, name in enumerate(("文言文", "emoji", "<b>x</b>"))}


@pytest.fixture
def folder(tmp_path, states, tiny):
    for name in ("文言文", "emoji"):
        save_state(states[name], tmp_path / f"{name}.pth")
    save_state(State(torch.ones(2, 3, 16, 16)), tmp_path / "three heads.pth")
    (tmp_path / "<script>.pth").write_bytes(b"nothing")
    return tmp_path


def test_what_is_chosen_in_the_drop_down_is_the_trait(states):
    picker = StatePicker(states)
    seen = []
    picker.observe(lambda change: seen.append(change["new"]), "state")
    _, menu, caption = parts(picker)
    assert (picker.name, picker.state) == ("文言文", states["文言文"])
    menu.value = "emoji"
    assert (picker.name, picker.state, caption.value) == ("emoji", states["emoji"], "chosen: emoji")
    menu.value = ""
    assert (picker.name, picker.state, caption.value) == ("", None, "chosen: zero")
    assert seen == [states["emoji"], None]


def test_what_is_set_from_python_is_shown(states, random_state):
    picker = StatePicker(states)
    _, menu, caption = parts(picker)
    picker.name = "emoji"
    assert (picker.state, menu.value, caption.value) == (states["emoji"], "emoji", "chosen: emoji")
    own = random_state("mine", 9)
    picker.state = own
    assert (picker.name, picker.state, menu.value) == ("", own, None)
    assert caption.value == "chosen: mine (set from Python)"
    menu.value = ""
    assert picker.state is None and caption.value == "chosen: zero"
    picker.name = "emoji"
    picker.state = None
    assert (picker.name, menu.value, caption.value) == ("", "", "chosen: zero")


def test_the_filter_shortens_the_list_and_leaves_the_choice(states):
    picker = StatePicker(states)
    filter_, menu, caption = parts(picker)
    picker.name = "emoji"
    filter_.value = "文"
    assert [label for label, _ in menu.options] == ["zero", "文言文"]
    assert (picker.name, menu.value, caption.value) == ("emoji", None, "chosen: emoji")
    filter_.value = ""
    assert menu.value == "emoji" and picker.state is states["emoji"]


def test_a_folder_lists_what_cannot_be_used_and_why_as_plain_text(folder, tiny):
    for picker in (StatePicker(folder, tiny), StatePicker(Shelf(folder), tiny)):
        _, menu, _, unusable = parts(picker)
        assert [label for label, _ in menu.options] == ["zero", "emoji", "文言文"]
        assert isinstance(unusable, ipywidgets.Textarea) and unusable.disabled
        assert "three heads: " in unusable.value and "H=3 (model 2)" in unusable.value
        assert "<script>: " in unusable.value
        assert picker.state.card.name == "emoji"
        with pytest.raises(ArgError, match="three heads"):
            picker.name = "three heads"


def test_a_file_that_goes_bad_is_said_in_the_caption_and_changes_nothing(folder, tiny):
    picker = StatePicker(folder, tiny)
    _, menu, caption, _ = parts(picker)
    before = picker.state
    (folder / "文言文.pth").write_bytes(b"gone bad")
    menu.value = "文言文"
    assert (picker.name, picker.state, menu.value) == ("emoji", before, "emoji")
    assert "文言文" in caption.value and "cannot be used" in caption.value


def test_names_are_neither_control_characters_nor_formulas(random_state):
    picker = StatePicker({"a\x1b[31m": random_state(), "$\\href{javascript:x}{y}$": random_state()})
    _, menu, caption = parts(picker)
    assert menu.options[1][0] == "a\\x1b[31m"
    picker.name = "$\\href{javascript:x}{y}$"
    assert "$" not in caption.value and "\\" not in caption.value and "href" in caption.value


def test_mistakes_are_named_and_change_nothing(states, tiny, tmp_path):
    picker = StatePicker(states, tiny)
    with pytest.raises(RwkvLabError, match="nope"):
        picker.name = "nope"
    with pytest.raises(MismatchError):
        picker.state = State(torch.ones(1, 1, 2, 2))
    assert (picker.name, picker.state) == ("文言文", states["文言文"])
    with pytest.raises(PathError):
        StatePicker(tmp_path / "nowhere")
    with pytest.raises(ArgError, match="StatePicker: need a Shelf"):
        StatePicker(3)


def test_an_empty_shelf_offers_the_zero_state(tmp_path):
    picker = StatePicker(tmp_path)
    assert picker.state is None and parts(picker)[1].value == ""
