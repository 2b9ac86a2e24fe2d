"""A base model under the names of Ai00 or transformers gives the logits, state and fingerprint of its .pth."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import rwkvlab as lab
from rwkvlab.errors import MismatchError, SchemaError
from rwkvlab.model.containers import open_container
from rwkvlab.model.random_weights import random_weights
from rwkvlab.shapes import Dims

TOKENS = torch.randint(0, 31, (1, 9), generator=torch.Generator().manual_seed(0))
SWAPPED = ["time_mix_w1", "time_mix_w2", "time_decay_w1", "time_decay_w2", "w1", "w2", "a1", "a2", "g1", "g2"]
SWAPPED += ["v1", "v2", "time_state", "lora.0"]


def to_ai00(weights):
    """Apply the rules of Ai00's converter, as `formats.md` has them, to an official checkpoint."""
    out = {}
    for key, tensor in weights.items():
        new = key.replace("time_faaaa", "time_first").replace("time_maa", "time_mix")
        new = new.replace("lora_A", "lora.0").replace("lora_B", "lora.1").lower()
        swap = any(name in new for name in SWAPPED)
        out[new] = (tensor.transpose(-1, -2) if swap else tensor).half().contiguous()
    return out


def same(a, b):
    assert a.dims == b.dims
    assert a.dtype == b.dtype
    assert a.card.fingerprint == b.card.fingerprint
    one, other = a.forward(TOKENS), b.forward(TOKENS)
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.state.wkv, other.state.wkv)
    assert one.logits.std() > 0.1


def halves(dims, ranks, **more):
    return {key: x.half() for key, x in (random_weights(dims, ranks) | more).items()}


def loaded(path):
    return lab.load_model(path, device="cpu")


@pytest.fixture
def pair(tmp_path):
    """pair(weights) -> the model from the official .pth, and the path of the .st that Ai00's converter makes of it."""

    def make(weights):
        torch.save(weights, tmp_path / "model.pth")
        save_file(to_ai00(weights), tmp_path / "model.st", metadata={"format": "pt"})
        return loaded(tmp_path / "model.pth"), tmp_path / "model.st"

    return make


def test_the_st_of_ai00_gives_what_its_pth_gives(pair, geometry):
    dims, ranks = geometry
    model, path = pair(halves(dims, ranks))
    same(model, loaded(path))


def test_the_suffix_of_an_st_does_not_matter_and_a_merged_state_in_it_is_left_alone(pair, geometries):
    dims, ranks = geometries["v6-N16"]
    model, path = pair(halves(dims, ranks, **{"blocks.1.att.time_state": torch.randn(dims.H, dims.K, dims.K)}))
    same(model, loaded(path.rename(path.with_suffix(".safetensors"))))


def test_one_square_lora_does_not_hide_the_orientation_of_the_others(pair):
    dims = Dims("x070", L=2, H=2, C=16, K=8, V=8, ffn=24, vocab=33)
    model, path = pair(halves(dims, {"w": 4, "a": 16, "v": 3, "g": 16}))
    same(model, loaded(path))
    with open_container(path) as ours, open_container(path.with_suffix(".pth")) as official:
        for key in ("blocks.0.att.a1", "blocks.1.att.v2", "blocks.0.att.g2"):
            assert ours.info(key) == official.info(key)
            assert torch.equal(ours.read(key), official.read(key))


def test_a_model_of_another_family_is_not_taken_for_a_part_of_an_rwkv7(tmp_path):
    keys = (
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.norm.weight",
        "lm_head.weight",
    )
    save_file({key: torch.zeros(2, 2) for key in keys}, tmp_path / "model.safetensors")
    with pytest.raises(SchemaError, match=r"not an RWKV base model; found 'lm_head\.weight'"):
        loaded(tmp_path / "model.safetensors")


def test_one_weight_under_two_names_is_refused(pair, geometries):
    _, path = pair(halves(*geometries["v6-N16"]))
    save_file(load_file(path) | {"blocks.0.att.time_faaaa": torch.ones(5, 16).half()}, path)
    with pytest.raises(SchemaError, match=r"'model\.st': .*time_f.*time_f.* are the same weight; save it once"):
        loaded(path)


def test_an_st_with_a_weight_missing_or_misshapen_is_refused_in_official_names(pair, geometries):
    _, path = pair(halves(*geometries["v6-N16"]))
    tensors = load_file(path)
    save_file({key: x for key, x in tensors.items() if key != "blocks.1.att.time_mix_w"}, path)
    with pytest.raises(SchemaError, match=r"RWKV-6 are missing: 'blocks\.1\.att\.time_maa_w'"):
        loaded(path)
    save_file(tensors | {"blocks.1.att.time_mix_w2": torch.zeros(5, 6, 80).half()}, path)  # not swapped
    with pytest.raises(MismatchError, match=r"blocks\.1\.att\.time_maa_w2: expected \[5, 6, 80\].*got \[5, 80, 6\]"):
        loaded(path)


def test_a_folder_with_the_names_of_transformers_gives_what_its_pth_gives(tmp_path, checkpoint_file, geometries):
    path, weights = checkpoint_file(*geometries["v7-N64"])
    unused = {"rwkv7.blocks.0.att.v1": torch.zeros(128, 8)}
    names = {("" if key.startswith("head.") else "rwkv7.") + key: x for key, x in weights.items()}
    save_file(names | unused, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "rwkv7"}')
    same(loaded(path), loaded(tmp_path))
