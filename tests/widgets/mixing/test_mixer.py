import threading
from types import SimpleNamespace

import pytest
import torch

import rwkvlab as lab
from rwkvlab.errors import ArgError, MismatchError, RwkvLabError
from rwkvlab.states.blend import lerp, mix, scale, slerp, splice, truncate
from rwkvlab.states.files import load_state, save_state
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.state import State
from rwkvlab.widgets.base.slider import Slider
from rwkvlab.widgets.mixing import mixer as mixer_module
from rwkvlab.widgets.mixing.mixer import StateMixer
from rwkvlab.widgets.mixing.recipes import check_recipe, shares

SOON = 60
# what a notebook calls lab
LAB = SimpleNamespace(
    **{name: getattr(lab, name) for name in ("lerp", "slerp", "mix", "scale", "splice", "truncate", "Shelf")},
    widgets=SimpleNamespace(StateMixer=StateMixer),
)


@pytest.fixture
def states(random_state):
    return {name: random_state(name, seed) for seed, name in enumerate(("文言文", "emoji", "third"))}


@pytest.fixture
def mixer(states, tiny):
    mixer = StateMixer(states, tiny)
    yield mixer
    mixer.close()
    assert mixer.work.wait(SOON)


def equal(a, b):
    return all(torch.equal(getattr(a, part), getattr(b, part)) for part in ("wkv", "att_shift", "ffn_shift"))


def weights(mixer):
    return [(row.menu.value, row.weight.value) for row in mixer._controls.rows]


def release(slider, value):
    slider._handle_custom_msg({"released": value}, [])


def test_two_states_begin_halfway_and_a_slider_leads_from_one_to_the_other(states, tiny):
    mixer = StateMixer(states, tiny, names=("emoji", "third"))
    a, b = states["emoji"], states["third"]
    assert equal(mixer.state, lerp(a, b, 0.5))
    for t in (0.0, 0.3, 1.0):
        mixer._controls.way_t.value = t
        assert equal(mixer.state, lerp(a, b, t)) and mixer.recipe["weights"] == {"emoji": 1 - t, "third": t}
        assert mixer.caption.text == f"mixture: lerp(emoji, third, {t:.9g})"
    mixer._controls.way.value = "slerp"
    mixer._controls.way_t.value = 0.3
    assert equal(mixer.state, slerp(a, b, 0.3))


@pytest.mark.parametrize("with_model", [True, False])
def test_each_recipe_makes_what_lab_s_own_functions_make(states, tiny, with_model):
    a, b, c = states.values()
    mixer = StateMixer(states, tiny if with_model else None)
    three = {"文言文": 0.5, "emoji": 0.25, "third": 0.25}
    zero = tiny.zero()
    one_layer = [(1, 0), (1, 1)]
    cases = [
        ({"weights": three}, mix([a, b, c], [0.5, 0.25, 0.25])),
        ({"weights": {"文言文": 1.0, "emoji": 3.0}}, mix([a, b], [0.25, 0.75])),
        ({"weights": {"文言文": -1.0, "emoji": 1.5}, "method": "sum"}, -1.0 * a + 1.5 * b),
        ({"weights": three, "gain": 0.8}, scale(mix([a, b, c], [0.5, 0.25, 0.25]), 0.8)),
        ({"weights": {"third": 1}, "rank": 2, "gain": -2}, scale(truncate(mix([c], [1.0]), 2), -2.0)),
        ({"weights": {"third": 1}, "layers": [1, 1]}, splice(zero, mix([c], [1.0]), one_layer)),
        (
            {"weights": {"emoji": 0.4, "third": 0.6}, "layers": (1, 1), "base": "first", "method": "slerp"},
            splice(b, slerp(b, c, 0.6), one_layer),
        ),
        ({"weights": {"": 0.4, "third": 0.6}, "method": "lerp"}, lerp(zero, c, 0.6)),
    ]
    for recipe, wanted in cases:
        mixer.recipe = recipe
        assert equal(mixer.state, wanted), recipe
        assert mixer.recipe == check_recipe(recipe) and list(mixer.recipe["weights"]) == list(recipe["weights"])
        assert mixer.picture.alt.startswith("norms of ") and mixer.caption.text.startswith("mixture: ")
        # the controls stand at the same recipe, and the codes make the same
        now = mixer._controls.recipe() | {"layers": mixer.recipe["layers"]}
        assert now == mixer.recipe, recipe
        names = {"lab": LAB, "shelf": states, "model": tiny, "range": range}
        again = eval(mixer.code, names)
        assert again.recipe == mixer.recipe and equal(again.state, wanted) and again.code == mixer.code
        if with_model or ("" not in recipe["weights"] and "layers" not in recipe):
            assert equal(eval(mixer.expression, names), wanted), mixer.expression


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (3, "need a dict"),
        ({"weights": [1]}, "need a dict"),
        ({"weights": {"emoji": 1}, "tempo": 1}, "no key 'tempo'"),
        ({"weights": {"nope": 1}}, "nope"),
        ({"weights": {"emoji": "1"}}, "need a number"),
        ({"weights": {"emoji": float("nan")}}, "need a number"),
        ({"weights": {"emoji": 0.0}}, "all are 0"),
        ({"weights": {"emoji": -1.0, "third": 2.0}}, "none below 0"),
        ({"weights": {"emoji": 1}, "method": "melt"}, "need one of mix"),
        ({"weights": {"emoji": 1}, "method": "lerp"}, "two states"),
        ({"weights": {"emoji": 1, "third": 1}, "method": "slerp"}, "1 - t and t"),
        ({"weights": {"emoji": 1}, "gain": float("inf")}, "gain"),
        ({"weights": {"emoji": 1}, "layers": [1, 0]}, "layers"),
        ({"weights": {"emoji": 1}, "layers": [0, 2]}, "layers"),
        ({"weights": {"emoji": 1}, "base": "moon"}, "base"),
        ({"weights": {"emoji": 1}, "rank": -1}, "rank"),
        ({"weights": {3: 1.0}}, "names of states"),
    ],
)
def test_a_bad_recipe_is_refused_and_changes_nothing(mixer, recipe, said):
    before, state, caption, rows = mixer.recipe, mixer.state, mixer.caption.text, weights(mixer)
    with pytest.raises(RwkvLabError, match=said):
        mixer.recipe = recipe
    assert (mixer.recipe, mixer.state, mixer.caption.text, weights(mixer)) == (before, state, caption, rows)
    mixer._controls.way_t.value = 0.25  # and it goes on
    assert mixer.recipe["weights"] == {"文言文": 0.75, "emoji": 0.25}


def test_what_python_sets_is_seen_and_observed(mixer, states, random_state):
    seen = []
    mixer.observe(lambda change: seen.append(change["name"]), ["state", "recipe"])
    own = random_state("mine", 9)
    mixer.state = own
    assert mixer.state is own and mixer.recipe == {} and seen.count("recipe") == 1
    assert mixer.caption.text == "state: mine (set from Python)"
    with pytest.raises(MismatchError):
        mixer.state = State(torch.ones(1, 1, 2, 2))
    assert mixer.state is own
    seen.clear()
    mixer._controls.way_t.value = 0.75  # a hand on a slider takes the mixture again
    assert equal(mixer.state, lerp(states["文言文"], states["emoji"], 0.75)) and sorted(seen) == ["recipe", "state"]
    given = {"weights": {"third": 1.0}}
    mixer.recipe = given
    assert given == {"weights": {"third": 1.0}} and weights(mixer) == [("third", 1.0)]


def test_states_are_added_exchanged_and_removed(mixer, states):
    a, b, c = states.values()
    controls = mixer._controls
    controls.add.click()
    assert mixer.recipe["method"] == "mix" and weights(mixer) == [("文言文", 0.5), ("emoji", 0.5), ("third", 0.0)]
    controls.rows[2].weight.value = 1.0
    assert equal(mixer.state, mix([a, b, c], [0.25, 0.25, 0.5]))
    controls.normal.value = False
    assert mixer.recipe["method"] == "sum" and equal(mixer.state, 0.5 * a + 0.5 * b + 1.0 * c)
    controls.rows[0].weight.value = -0.5
    assert equal(mixer.state, -0.5 * a + 0.5 * b + 1.0 * c)
    controls.rows[0].menu.value = "third"  # which stands in the last row: they trade places
    assert weights(mixer) == [("third", -0.5), ("emoji", 0.5), ("文言文", 1.0)]
    controls.rows[1].remove.click()
    assert weights(mixer) == [("third", -0.5), ("文言文", 1.0)]
    controls.way.value = "slerp"
    assert mixer.recipe["method"] == "slerp" and controls.rows[0].weight.layout.display == "none"
    controls.rows[0].remove.click()
    assert len(mixer.recipe["weights"]) == 1 and controls.rows[0].remove.disabled
    controls.add.click()
    controls.add.click()
    controls.add.click()  # the zero state is the last that there is
    assert len(weights(mixer)) == 4
    controls.add.click()
    assert len(weights(mixer)) == 4


def test_gain_layers_base_and_rank_follow_the_controls(mixer, states):
    a, b = states["文言文"], states["emoji"]
    controls = mixer._controls
    controls.gain.value = 0.5
    controls.keep.value = 3.0
    assert equal(mixer.state, scale(truncate(lerp(a, b, 0.5), 3), 0.5))
    controls.span.value = (0, 0)
    controls.base.value = "first"
    assert equal(mixer.state, splice(a, scale(truncate(lerp(a, b, 0.5), 3), 0.5), [(0, 0), (0, 1)]))
    assert mixer.recipe["layers"] == [0, 0] and mixer.recipe["base"] == "first"


def test_a_weight_that_nothing_can_be_made_of_is_said_and_put_back(mixer):
    mixer.recipe = {"weights": {"emoji": 0.5}}
    mixer._controls.rows[0].weight.value = 0.0
    assert mixer.caption.trouble and "all are 0" in mixer.caption.text
    assert weights(mixer) == [("emoji", 0.5)] and mixer.recipe["weights"] == {"emoji": 0.5}
    mixer._controls.rows[0].weight.value = 0.6
    assert not mixer.caption.trouble


def test_a_file_that_goes_bad_is_said_and_the_mixer_goes_on(tmp_path, states, tiny):
    for name, state in states.items():
        save_state(state, tmp_path / f"{name}.pth")
    mixer = StateMixer(tmp_path, tiny, names=("emoji", "文言文"))
    (tmp_path / "third.pth").write_bytes(b"gone bad")
    before = mixer.state
    mixer._controls.add.click()
    assert mixer.caption.trouble and "third" in mixer.caption.text
    assert mixer.state is before and [name for name, _ in weights(mixer)] == ["emoji", "文言文"]
    mixer._controls.add.click()  # it is not offered again: the zero state is what is left
    assert not mixer.caption.trouble and [name for name, _ in weights(mixer)] == ["emoji", "文言文", ""]
    mixer._controls.rows[2].remove.click()
    mixer._controls.way.value = "lerp"
    mixer._controls.way_t.value = 0.9
    assert not mixer.caption.trouble and mixer.recipe["weights"]["文言文"] == 0.9
    assert (
        mixer.expression
        == f"lab.lerp(lab.Shelf({str(tmp_path)!r})['emoji'], lab.Shelf({str(tmp_path)!r})['文言文'], 0.9)"
    )


def test_large_states_are_mixed_in_the_thread_and_the_last_move_wins(states, tiny, monkeypatch):
    mixer = StateMixer(states, tiny, names=("emoji", "third"))
    monkeypatch.setattr(mixer_module, "HEAVY", 0)
    threads = []
    build = mixer_module.build
    monkeypatch.setattr(
        mixer_module, "build", lambda *a: (threads.append(threading.current_thread().name), build(*a))[1]
    )
    for number in range(1, 30):
        mixer._controls.way_t.value = number / 100
    assert mixer.work.wait(SOON)
    assert set(threads) == {"rwkvlab-later"}
    assert equal(mixer.state, lerp(states["emoji"], states["third"], 0.29))
    monkeypatch.setattr(mixer_module, "build", lambda *a: (_ for _ in ()).throw(ArgError("<b>broken</b>")))
    mixer._controls.way_t.value = 0.5
    assert mixer.work.wait(SOON)
    assert mixer.work.caption.trouble and "<b>" not in mixer.work.caption.value and "broken" in mixer.work.caption.text
    monkeypatch.setattr(mixer_module, "build", build)
    mixer._controls.way_t.value = 0.6
    assert mixer.work.wait(SOON) and equal(mixer.state, lerp(states["emoji"], states["third"], 0.6))


def test_the_answer_is_written_when_a_slider_is_released_and_not_before(states, tiny):
    mixer = StateMixer(states, tiny, names=("emoji", "third"), prompt="你好", template="raw", max_tokens=5)
    assert mixer.work.wait(SOON)
    options = {"template": "raw", "max_tokens": 5, "temperature": 0.0, "presence": 0.0, "frequency": 0.0}
    assert mixer.answer == tiny.chat("你好", mixer.state, **options).text
    asked = []
    mixer._answer.write = lambda state, report: asked.append(state) or "asked"
    mixer._controls.way_t.value = 0.1
    mixer._controls.way_t.value = 0.2
    assert mixer.work.wait(SOON) and asked == []
    release(mixer._controls.way_t, 0.9)
    assert mixer.work.wait(SOON) and len(asked) == 1
    assert equal(asked[0], lerp(states["emoji"], states["third"], 0.9)) and mixer.recipe["weights"]["third"] == 0.9


def test_stop_ends_an_answer_and_keeps_what_is_written(states, tiny):
    began = threading.Event()

    def chat(prompt, state, *, on_text, cancel, **_):
        on_text("<i>first")
        began.set()
        assert cancel.wait(SOON)
        return SimpleNamespace(text="<i>first", tokens=(1,), finish="cancelled")

    mixer = StateMixer(states, tiny)
    mixer._answer.model = SimpleNamespace(chat=chat)
    mixer._answer.prompt.value = "ask"
    assert began.wait(SOON)
    mixer.work.stop()
    assert mixer.work.wait(SOON)
    assert mixer.answer == "<i>first … (stopped)" and "<i>" not in mixer._answer.answer.value


def test_a_mixture_is_saved_and_never_over_a_file(mixer, tmp_path):
    row = mixer._save
    caption, path = row.work.caption, tmp_path / "混合.safetensors"

    def save(name):
        row.file.value = str(name)
        row.button.click()
        assert row.work.wait(10)

    for wrong, why in (("", "need a file name"), (tmp_path / "no" / "a.pth", "folder"), (f"{path}.x", "")):
        save(wrong)
        assert caption.trouble and why in caption.text and row.saved == ""
    save(path)
    assert not caption.trouble and "saved" in caption.text
    assert equal(load_state(path), mixer.state)
    before = path.read_bytes()
    mixer._controls.way_t.value = 1.0
    save(path)
    assert "is there already" in caption.text and caption.trouble and path.read_bytes() == before


def test_names_from_outside_act_nowhere(random_state):
    hostile = ("<img src=x onerror=alert(1)>", "$\\frac$", "\x1b[31m", "\u202egnp", "a'b\"\n", "你好")
    states = {name: random_state(name, seed) for seed, name in enumerate(hostile)}
    mixer = StateMixer(states, recipe={"weights": dict.fromkeys(hostile, 1.0)})
    page = mixer.caption.value + mixer.picture.value
    assert "<img src=x" not in page and not set(page) & set("\x1b\u202e")
    assert not any(
        set(label) & set("\x1b\u202e\n") for row in mixer._controls.rows for label in row.menu._options_labels
    )
    assert eval(mixer.code, {"lab": LAB, "shelf": states}).recipe == mixer.recipe
    assert mixer.snapshot().startswith(b"\x89PNG") and "image/png" in mixer._repr_mimebundle_()


def test_an_empty_shelf_and_one_state_are_enough(tmp_path, states, tiny):
    mixer = StateMixer(tmp_path)
    assert mixer.state is None and mixer.caption.text == "mixture: the zero state" and weights(mixer) == []
    mixer._controls.add.click()
    assert mixer.state is None
    one = StateMixer({"emoji": states["emoji"]}, tiny)
    assert equal(one.state, states["emoji"]) and weights(one) == [("emoji", 1.0)]
    one._controls.way.value = "lerp"  # with the zero state as the other
    assert equal(one.state, lerp(states["emoji"], tiny.zero(), one._controls.way_t.value))
    with pytest.raises(RwkvLabError, match="nope"):
        StateMixer(states, names=("emoji", "nope"))
    with pytest.raises(ArgError, match="StateMixer: need a Shelf"):
        StateMixer(3)


def test_a_slider_widens_for_python_and_not_for_a_page():
    slider = Slider(value=3.0)
    assert slider.max == 3.0
    told = []
    slider.on_release(lambda: told.append(slider.value))
    for content in ({"released": 9.0}, {"released": "1"}, {"released": True}, {"released": float("nan")}, 3, {}):
        slider._handle_custom_msg(content, [])
    assert told == [] and slider.value == 3.0
    release(slider, 0.5)
    assert told == [0.5]
    for text in (str(slider._esm), str(slider._css)):
        assert "innerHTML" not in text and "http" not in text and "import" not in text


def test_shares_sum_to_one_and_leave_what_does():
    assert shares([0.1, 0.2, 0.7]) == [0.1, 0.2, 0.7] and shares([1.0, 3.0]) == [0.25, 0.75]


def test_a_shelf_of_a_folder_is_written_by_its_variable(tmp_path, states, tiny):
    save_state(states["emoji"], tmp_path / "emoji.pth")
    mixer = StateMixer(Shelf(tmp_path), tiny)
    assert mixer.expression == "lab.mix([shelf['emoji']], [1.0])"
