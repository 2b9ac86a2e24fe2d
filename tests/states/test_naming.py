"""A state gets the name that its card, its geometry and its model tell; what nobody tells is asked for."""

import pytest
import torch

from rwkvlab.errors import ArgError, PathError, SaveError
from rwkvlab.shapes import Dims
from rwkvlab.states.card import ModelCard, StateCard
from rwkvlab.states.files import load_state, save_state
from rwkvlab.states.names import parse_name
from rwkvlab.states.naming import folder_name, name_for, offer
from rwkvlab.states.state import State


class Base:
    dims = Dims("x070", L=2, H=2, C=8, K=4, V=4, ffn=16, vocab=9)
    card = ModelCard("rwkv7-g1a4-World-2.9b-v3-20251118-ctx8192.pth", "x070", "ab" * 32)


def state(name="", arch="x070", layers=2, heads=2, size=4):
    # no memory is touched: the geometry alone is looked at
    value = State(torch.zeros(1, 1, size, size), card=StateCard(name, arch))
    object.__setattr__(value, "_wkv", torch.zeros(1).expand(layers, heads, size, size))
    object.__setattr__(value, "_versions", value._written())
    return value


@pytest.mark.parametrize(
    ("arch", "layers", "width", "size"),
    [
        *(
            ("x070", 12, 768, "0.1B"),
            ("x070", 24, 1024, "0.4B"),
            ("x070", 24, 2048, "1.5B"),
            ("x070", 32, 2560, "2.9B"),
        ),
        *(
            ("x070", 32, 4096, "7.2B"),
            ("x070", 61, 4096, "13.3B"),
            ("x060", 24, 2048, "1.6B"),
            ("x060", 32, 2560, "3B"),
        ),
        *(("x060", 32, 4096, "7B"), ("x060", 61, 4096, "14B"), ("x052", 24, 1024, "0.4B"), ("x052", 32, 4096, "7B")),
    ],
)
def test_the_size_is_read_off_a_published_geometry(arch, layers, width, size):
    made = name_for(state("450M", arch, layers, width // 64, 64), "emoji", kind="World")
    assert made == f"rwkv-{arch}-World-{size}-emoji.state"


def test_another_geometry_has_the_size_that_somebody_says():
    assert name_for(state("rwkv-450m-World"), "emoji") == "rwkv-x070-World-450M-emoji.state"
    assert name_for(state(layers=12, heads=6, size=128), "a", kind="World", size="9B") == "rwkv-x070-World-9B-a.state"
    with pytest.raises(ArgError, match=r"name_for: size: not known.*as in name_for\(state, size='2\.9B'\)"):
        name_for(state(layers=12, heads=6, size=128), "emoji", kind="World")


def test_what_the_name_on_the_card_says_is_kept():
    made = state("rwkv6-world-v3-7b-chn_文言文QA-65%trained-Eng98%-20241114-ctx2048_Q8_0", arch="")
    assert name_for(made) == "rwkv-x060-World-7B-chn_文言文QA-v3-Eng98%-65%trained-20241114-ctx2048.state"
    assert name_for(made, "emoji", date=None, ctx=None, progress=None, lang=None, ext=".pth", kind="Pile") == (
        "rwkv-x060-Pile-7B-emoji-v3.pth"
    )
    # the card knows better than the name, but for the letter of a variant
    assert name_for(state("rwkv-6-World-3B-a")).startswith("rwkv-x070-")
    assert name_for(state("rwkv7a-g1d-0.1b-a"), kind="World").startswith("rwkv7a-g1d-")


def test_the_model_tells_kind_size_and_version_but_not_its_date():
    assert name_for(state("emoji"), model=Base()) == "rwkv-x070-g1a4-World-2.9B-emoji-v3.state"
    with pytest.raises(ArgError, match="model: need a model"):
        name_for(state("emoji"), model="m.pth")


def test_what_nobody_says_is_asked_for_with_an_example():
    with pytest.raises(ArgError, match="arch, kind, size, purpose: not known") as caught:
        name_for(state(arch=""))
    call = str(caught.value).split("as in ")[1]
    assert eval(call, {"name_for": name_for, "state": state(arch="")}) == "rwkv-x070-World-2.9B-chn_文言文QA.state"
    with pytest.raises(ArgError, match="purpose: not known"):
        name_for(state("rwkv-12"), kind="World", size="3B")  # a trainer's counter is no purpose
    with pytest.raises(ArgError, match="purpose: not known"):
        name_for(0.5 * small(), kind="World", size="3B")  # it is another state now


def test_a_wrong_part_is_named():
    with pytest.raises(ArgError, match="a name has no 'colour'; it has arch, series, kind"):
        name_for(state("a-World-3B"), colour="red")
    with pytest.raises(ArgError, match="size: 'big' would be read back"):
        name_for(state("a-World"), size="big")
    with pytest.raises(ArgError, match=r"ext: '\.txt'"):
        name_for(state("a-World-3B"), ext=".txt")
    with pytest.raises(ArgError, match="need a State, got str"):
        name_for("a.pth")


def test_a_better_name_is_offered_for_ai00_only_where_it_lacks_something():
    good = "rwkv-x060-World-3B-chn_文言文QA.state"
    assert offer(state(), good) == ""
    for other in ("emoji.pth", "emoji.safetensors", "emoji"):
        assert offer(state(), other) == ""
    said = offer(state("rwkv-x070-World-2.9b-x"), "out/emoji.state")
    assert said.startswith("the name 'emoji.state' does not say arch, kind, size, which Ai00's documentation asks for")
    assert said.endswith("; offered: rwkv-x070-World-2.9B-emoji.state")
    assert offer(state(), "emoji.st").endswith(
        "; offered: rwkv-x070-emoji.st; add kind (such as World), size (such as 2.9B)"
    )
    assert offer(state(arch=""), "emoji.st").endswith(
        "asks for; add arch (such as x070), kind (such as World), size (such as 2.9B)"
    )
    assert parse_name(said.rsplit(" ", 1)[1]).missing == ()
    assert offer(state("World-3B-\x1b"), "\x1b.state") == ""


def small(name="rwkv7-g1-World-2.9b-emoji-v3-20250519-ctx4096"):
    card = StateCard(name, "x070", "ab" * 32, "g1", notes=("note", "stored as bfloat16"))
    return State(torch.randn(2, 2, 4, 4), att_shift=torch.randn(2, 8), ffn_shift=torch.randn(2, 8), card=card)


def test_in_a_folder_a_state_is_saved_whole_under_the_offered_name(tmp_path):
    made = small()
    path = save_state(made, tmp_path)
    assert path.name == "rwkv-x070-g1-World-2.9B-emoji-v3-20250519-ctx4096.safetensors" == folder_name(made)
    back = load_state(path)
    assert all(map(torch.equal, back._tensors(), made._tensors()))
    assert back.card.replace(source="") == made.card.replace(notes=("note",))


def test_an_offered_name_never_replaces_a_file_that_is_there(tmp_path):
    made = small("emoji")
    path = save_state(made, tmp_path)
    assert path.name == "rwkv-x070-emoji.safetensors"
    before = path.read_bytes()
    with pytest.raises(SaveError, match="is there already; choose another name, or pass overwrite=True"):
        save_state(small("emoji"), str(tmp_path))
    assert path.read_bytes() == before
    save_state(small("emoji"), tmp_path, overwrite=True)
    assert path.read_bytes() != before
    save_state(made, path)  # a path given in full is replaced, as ever
    assert path.read_bytes() == before
    with pytest.raises(SaveError, match="is there already"):
        save_state(made, path, overwrite=False)


def test_a_state_that_nobody_named_is_not_put_into_a_folder(tmp_path):
    with pytest.raises(ArgError, match=r"path is a folder, and neither name nor purpose.*name_for\(state"):
        save_state(small(""), tmp_path)
    with pytest.raises(ArgError, match="position"):
        save_state(small("a\x1bb"), tmp_path)
    with pytest.raises((ArgError, PathError)):
        save_state(small("emoji"), tmp_path / "none")
    assert not list(tmp_path.iterdir())
