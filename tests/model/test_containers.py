"""A Hugging Face folder gives the logits and fingerprint of its .pth; one that lies is refused by name."""

import json
import os
import shutil
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file, save_file

import rwkvlab as lab
from rwkvlab.errors import FormatError, LimitError, LoadError, MismatchError, PathError, SchemaError
from rwkvlab.model import containers
from rwkvlab.model.containers import open_container
from rwkvlab.shapes import Dims

TOKENS = torch.randint(0, 31, (1, 9), generator=torch.Generator().manual_seed(0))
DIMS = Dims("x070", L=3, H=2, C=128, K=64, V=64, ffn=256, vocab=101)
RANKS = {"w": 32, "a": 32, "v": 32, "g": 64}
INDEX = "model.safetensors.index.json"
OUTSIDE = [
    "../model.safetensors",
    "/etc/passwd",
    "..",
    "",
    "sub/x.safetensors",
    "sub\\x.safetensors",
    "C:x.safetensors",
]
OUTSIDE += [".hidden.safetensors", "a\0b.safetensors", "a\x1b[2J.safetensors", "x.bin", "x" * 300 + ".safetensors"]
OUTSIDE += [None, 7, ["a.safetensors"]]


def same(a, b):
    assert a.dims == b.dims
    assert a.dtype == b.dtype
    assert a.card.fingerprint == b.card.fingerprint
    one, other = a.forward(TOKENS), b.forward(TOKENS)
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.state.wkv, other.state.wkv)
    assert one.logits.std() > 0.1


def loaded(path):
    return lab.load_model(path, device="cpu")


@pytest.fixture(scope="module")
def hf(tmp_path_factory, checkpoint_file):
    """hf(dtype, *arguments) -> the official .pth, and the folder that PyPI's rwkv7-hf writes of it."""
    pytest.importorskip("rwkv7_hf", reason="rwkv7-hf is not installed")
    from rwkv7_hf.converter import convert, parse_args

    path, _ = checkpoint_file(DIMS, RANKS)
    made = {}

    def make(*arguments):
        if arguments not in made:
            folder = tmp_path_factory.mktemp("hf") / "rwkv7-g1-0.1B"
            convert(parse_args(["--input", str(path), "--output", str(folder), "--precision", "fp32", *arguments]))
            made[arguments] = folder
        return path, made[arguments]

    return make


@pytest.fixture
def shards(hf, tmp_path):
    """A folder of several shards that the test may spoil."""
    _, folder = hf("--low-memory", "--max-shard-size", "200KB")
    return shutil.copytree(folder, tmp_path / "model")


@pytest.mark.parametrize("arguments", [(), ("--low-memory", "--max-shard-size", "200KB")], ids=["whole", "shards"])
def test_a_hugging_face_folder_gives_what_its_pth_gives(hf, arguments):
    path, folder = hf(*arguments)
    assert len(list(folder.glob("*.safetensors"))) == 1 if not arguments else (folder / INDEX).exists()
    model = loaded(folder)
    same(loaded(path), model)
    report, other = lab.inspect_file(folder), lab.inspect_file(path)
    assert (report.kind, report.container, report.problem) == ("base model", "folder", "")
    assert report.fingerprint == other.fingerprint == model.card.fingerprint
    assert (report.values.low, report.values.high) == (other.values.low, other.values.high)
    assert model.card.name == "rwkv7-g1-0.1B"
    same(model, loaded(str(folder) + "/"))


def test_the_file_of_a_folder_loads_alone_and_one_shard_of_several_does_not(hf, shards):
    path, folder = hf()
    same(loaded(path), loaded(folder / "model.safetensors"))
    for shard in shards.glob("*.safetensors"):
        with pytest.raises(
            SchemaError, match=r"but no .*: not a whole RWKV-7; if it is one of several files, give their folder"
        ):
            loaded(shard)


def test_a_folder_of_links_as_in_the_cache_of_the_hub_is_read(hf, shards, tmp_path):
    linked = tmp_path / "snapshot"
    linked.mkdir()
    for file in shards.iterdir():
        (linked / file.name).symlink_to(file)
    same(loaded(hf()[0]), loaded(linked))


def test_of_swapped_tensors_no_more_than_one_is_held(monkeypatch, hf):
    reads = []
    monkeypatch.setattr(containers.TensorFile, "read", lambda self, key: reads.append(key) or torch.zeros(2, 3))
    with open_container(hf()[1]) as file:
        assert reads == []
        assert file.read("blocks.1.att.w1").shape == (3, 2)
        assert file.read("blocks.1.att.w0").shape == (2, 3)
    assert reads == ["model.layers.1.attn.w_lora.lora.0.weight", "model.layers.1.attn.w_lora.lora.2.bias"]


def weight_map(folder, change):
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    "name",
    OUTSIDE,
)
def test_a_shard_with_no_plain_name_is_refused(shards, name):
    weight_map(shards, lambda table: table.update({"model.norm.weight": name}))
    with pytest.raises(FormatError, match=r"index\.json: weight_map: 'model\.norm\.weight': need the plain name") as e:
        loaded(shards)
    assert "download the folder again" in str(e.value)
    assert str(e.value).isprintable()


def test_a_shard_that_is_missing_or_no_file_is_named(shards):
    shard = sorted(shards.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(PathError, match=rf"weight_map: '{shard.name}' is not in .*model'; download it"):
        loaded(shards)
    shard.mkdir()
    with pytest.raises(PathError, match="is a folder"):
        loaded(shards)
    shard.rmdir()
    shard.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(FormatError, match=rf"{shard.name}.*git-lfs pointer"):
        loaded(shards)


def test_index_and_shards_that_disagree_are_refused(shards):
    one, two = sorted(shards.glob("*.safetensors"))[:2]
    tensors = load_file(two)
    key = next(iter(load_file(one)))
    save_file(tensors | {key: torch.zeros(2)}, two)
    with pytest.raises(SchemaError, match=rf"'{two.name}': '{key}' is in it, and not so in {INDEX}; download"):
        loaded(shards)
    save_file({name: x for name, x in tensors.items() if name != sorted(tensors)[0]}, two)
    with pytest.raises(SchemaError, match=rf"'{two.name}': '{sorted(tensors)[0]}' is not in it, in spite of {INDEX}"):
        loaded(shards)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("", lab.RwkvLabError, "empty"),
        ("{", FormatError, "not JSON"),
        ("[]", FormatError, "need an object"),
        ("{}", FormatError, "weight_map: need an object"),
        ('{"weight_map": []}', FormatError, "weight_map: need an object"),
        ('{"weight_map": {}}', FormatError, "weight_map: need an object"),
        ('{"weight_map": {"a": "b.safetensors", "a": "c.safetensors"}}', FormatError, "'a' is there twice"),
        ('{"weight_map": ' + "[" * 100_000 + "}", FormatError, "nested too deep"),
        ('{"a": ' + "9" * 5000 + "}", FormatError, "number too long"),
        ("{}" + " " * (16 << 20), LimitError, "16,777,218 bytes"),
        (json.dumps({"weight_map": {str(i): "a.safetensors" for i in range(100_001)}}), LimitError, "100,001 tensors"),
        (json.dumps({"weight_map": {str(i): f"{i}.safetensors" for i in range(257)}}), LimitError, "257 files"),
    ],
    ids=["empty", "cut", "list", "bare", "table", "none", "twice", "deep", "number", "large", "tensors", "shards"],
)
def test_a_hostile_index_is_refused(shards, text, kind, words):
    (shards / INDEX).write_text(text)
    tracemalloc.start()
    try:
        with pytest.raises(kind, match=words) as e:
            loaded(shards)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert INDEX in str(e.value)
    assert isinstance(e.value, LoadError)


def test_a_folder_that_is_no_rwkv7_is_refused_by_name(shards):
    config = json.loads((shards / "config.json").read_text())
    for change, words in [
        ({"model_type": "llama"}, r"config\.json: model_type: need 'rwkv7', got 'llama'"),
        ({"model_type": None}, "model_type: need 'rwkv7', got 'None'"),
        ({"norm_eps": 1e-6}, "norm_eps: need 1e-05, got '1e-06'"),
    ]:
        (shards / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(MismatchError, match=words):
            loaded(shards)
    (shards / "config.json").write_bytes(b"\xff{}")
    with pytest.raises(FormatError, match=r"config\.json.*UTF-8"):
        loaded(shards)
    (shards / "config.json").unlink()
    os.mkfifo(shards / "config.json")
    with pytest.raises(PathError, match="is a named pipe"):
        loaded(shards)
    (shards / "config.json").unlink()
    with pytest.raises(PathError, match=r"is a folder without config\.json; give the path of a model file"):
        loaded(shards)


def test_a_folder_without_weights_or_with_two_sets_is_refused(hf, shards):
    shutil.copy(hf()[1] / "model.safetensors", shards)
    with pytest.raises(SchemaError, match=r"has both model\.safetensors and .*index\.json; remove"):
        loaded(shards)
    for file in shards.glob("model*"):
        file.unlink()
    with pytest.raises(PathError, match=r"has no model\.safetensors and no .*download the folder again"):
        loaded(shards)
