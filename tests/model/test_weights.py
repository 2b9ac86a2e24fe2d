"""Checkpoints are known by their keys: whole ones load as they are, every other kind is refused by its name."""

import pytest
import torch

import rwkvlab as lab
from rwkvlab.errors import ArgError, MismatchError, NonFiniteError, PathError, SchemaError
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.weights import load_weights
from rwkvlab.shapes import Dims
from rwkvlab.states.card import same_base

V7 = Dims("x070", L=2, H=2, C=16, K=8, V=8, ffn=24, vocab=33)
V6 = Dims("x060", L=2, H=2, C=16, K=8, V=8, ffn=24, vocab=33)
V5 = Dims("x052", L=2, H=2, C=16, K=8, V=8, ffn=24, vocab=33)
RANKS = {"w": 4, "a": 4, "v": 3, "g": 5, "maa": 3, "decay": 4}


@pytest.fixture
def saved(tmp_path):
    def save(weights, name="model.pth"):
        torch.save(weights, tmp_path / name)
        return tmp_path / name

    return save


def v7(**changes):
    return random_weights(V7, RANKS) | changes


def test_dims_ranks_and_dtype_are_read_off_the_tensors(saved):
    model = lab.load_model(saved({key: x.bfloat16() for key, x in v7().items()}), device="cpu")
    assert model.dims == V7
    assert model.dtype == torch.bfloat16
    assert model.zero().wkv.dtype == torch.float32
    assert lab.load_model(saved(v7()), device="cpu", dtype="bf16").dtype == torch.bfloat16


def test_the_unused_value_lora_of_layer_0_may_be_there_or_not(saved):
    extra = {f"blocks.0.att.v{i}": torch.randn(1, 1, 16) for i in range(3)}
    with_it, without = (lab.load_model(saved(v7(**more)), device="cpu") for more in (extra, {}))
    assert torch.equal(with_it.forward([1, 2]).logits, without.forward([1, 2]).logits)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("RWKV-7a", {"blocks.0.ffn.s_emb.weight": torch.zeros(2, 2)}),
        ("RWKV-7b", {"blocks.0.att.qkv.weight": torch.zeros(2, 2)}),
        ("RWKV-8", {"blocks.0.ffn.enn.weight": torch.zeros(2, 2)}),
    ],
)
def test_later_versions_are_refused_by_name(saved, name, change):
    with pytest.raises(MismatchError, match=rf"'model\.pth': this is {name}\b"):
        lab.load_model(saved(v7(**change)))


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("RWKV-4", {"time_decay": [16]}),
        ("RWKV-5.0", {"time_decay": [2], "ln_x.weight": [16]}),
        ("RWKV-5.1", {"time_decay": [2, 1], "ln_x.weight": [16], "gate.weight": [16, 16]}),
    ],
)
def test_earlier_versions_are_refused_by_name(saved, name, keys):
    weights = {"emb.weight": torch.zeros(33, 16)} | {f"blocks.0.att.{k}": torch.zeros(s) for k, s in keys.items()}
    with pytest.raises(MismatchError, match=rf"this is {name}\b"):
        lab.load_model(saved(weights))


def test_a_state_or_an_adapter_given_as_a_model_is_named(saved):
    with pytest.raises(MismatchError, match="tuned state, not a model; open it with load_state"):
        lab.load_model(saved({"blocks.0.att.time_state": torch.zeros(2, 8, 8)}))
    own = lab.save_state(lab.State(torch.zeros(1, 2, 8, 8)), saved({}).parent / "own.safetensors")
    with pytest.raises(MismatchError, match="tuned state, not a model"):
        lab.load_model(own)
    with pytest.raises(MismatchError, match="LoRA adapter"):
        lab.load_model(saved({"blocks.0.att.key.lora_A": torch.zeros(2, 8)}))
    with pytest.raises(SchemaError, match=r"no emb\.weight"):
        lab.load_model(saved({"x": torch.zeros(2)}))


def test_what_is_missing_extra_or_misshapen_is_named(saved):
    weights = v7()
    del weights["blocks.1.att.a1"]
    with pytest.raises(SchemaError, match=r"1 weights of RWKV-7 are missing: 'blocks\.1\.att\.a1'"):
        lab.load_model(saved(weights))
    with pytest.raises(SchemaError, match=r"not part of RWKV-7: 'blocks\.1\.att\.new'"):
        lab.load_model(saved(v7(**{"blocks.1.att.new": torch.zeros(2)})))
    with pytest.raises(MismatchError, match=r"head\.weight: expected \[33, 16\].*got \[32, 16\]"):
        lab.load_model(saved(v7(**{"head.weight": torch.zeros(32, 16)})))
    with pytest.raises(MismatchError, match=r"ffn\.key\.weight"):
        lab.load_model(saved(v7(**{"blocks.1.ffn.key.weight": torch.zeros(25, 16)})))
    renamed = {key.replace("blocks.1.", "blocks.9999."): x for key, x in v7().items()}
    with pytest.raises(SchemaError, match="layer 1 is missing"):
        lab.load_model(saved(renamed))


def test_weights_beyond_the_dtype_that_is_asked_for_are_refused(saved):
    weights = v7()
    weights["blocks.1.ffn.key.weight"][3, 5] = 7e4
    path = saved(weights)
    assert lab.load_model(path, device="cpu").dtype == torch.float32
    with pytest.raises(NonFiniteError, match=r"ffn\.key\.weight: 70000 is beyond fp16; load it with another dtype="):
        lab.load_model(path, device="cpu", dtype="fp16")
    wide = {key: value.double() for key, value in v7().items()}
    wide["emb.weight"][0, 0] = 1e300
    with pytest.raises(NonFiniteError, match="is beyond fp32"):
        lab.load_model(saved(wide), device="cpu")


def test_nan_weights_are_refused_with_their_place(saved):
    weights = v7()
    weights["blocks.1.ffn.key.weight"][3, 5] = float("nan")
    with pytest.raises(NonFiniteError, match=r"blocks\.1\.ffn\.key\.weight: 1 values.*\[3, 5\]"):
        lab.load_model(saved(weights))


def test_wrong_arguments_say_what_is_wanted(saved, tmp_path):
    path = saved(v7())
    for kwargs, name in [
        ({"dtype": "int8"}, "dtype"),
        ({"device": "cuda:77"}, "device"),
        ({"backend": "x"}, "backend"),
    ]:
        with pytest.raises(ArgError, match=name):
            lab.load_model(path, **kwargs)
    with pytest.raises(PathError):
        lab.load_model(tmp_path / "absent.pth")


@pytest.mark.parametrize("dims", [V7, V6], ids=["v7", "v6"])
def test_the_fingerprint_survives_another_dtype_and_tells_models_apart(saved, dims):
    weights = random_weights(dims, RANKS)
    marks = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        path = saved({key: x.to(dtype) for key, x in weights.items()})
        marks[dtype] = load_weights(path, torch.device("cpu")).fingerprint
    other = load_weights(saved(random_weights(dims, RANKS, seed=1)), torch.device("cpu")).fingerprint
    first = marks[torch.float32]
    assert len(first) == 64
    assert all(same_base(first, mark) for mark in marks.values())
    assert not same_base(first, other)
    apart = (int(first, 16) ^ int(other, 16)).bit_count()
    assert 90 < apart < 166  # 256 fair coins


def test_the_weights_of_a_loaded_model_do_not_follow_the_file(saved):
    path = saved(v7())
    model = lab.load_model(path, device="cpu")
    before = model.forward([1, 2, 3]).logits
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(model.forward([1, 2, 3]).logits, before)


def test_a_state_of_another_base_is_refused_and_any_base_overrides(saved, tmp_path):
    a, b = (lab.load_model(saved(random_weights(V7, RANKS, seed=seed)), device="cpu") for seed in (0, 1))
    path = lab.save_state(a.zero().replace(wkv=torch.ones(2, 2, 8, 8)), tmp_path / "a.safetensors")
    assert lab.load_state(path, a).card.base == a.card.fingerprint
    with pytest.raises(MismatchError, match=r"another base model.*any_base=True"):
        lab.load_state(path, b)
    state = lab.load_state(path, b, any_base=True)
    assert "another base model" in state.card.notes[-1]
    b.forward([1], state)


def test_a_head_of_zero_keys_is_finite_in_half_precision(saved):
    weights = v7()
    weights["blocks.1.att.key.weight"][:8] = 0
    model = lab.load_model(saved(weights), device="cpu", dtype="fp16")
    assert model.forward([1, 2, 3]).logits.isfinite().all()
    assert model.forward([4], model.read([1, 2, 3])).logits.isfinite().all()


@pytest.mark.parametrize(("dims", "key"), [(V6, "time_faaaa"), (V6, "time_decay"), (V5, "time_decay")], ids=str)
def test_decays_stay_fp32_whatever_the_weights_are(saved, dims, key):
    weights = random_weights(dims, RANKS)
    loaded = load_weights(saved(weights), torch.device("cpu"), "bf16").weights
    assert torch.equal(loaded[f"blocks.1.att.{key}"], weights[f"blocks.1.att.{key}"])
    assert loaded["blocks.1.att.key.weight"].dtype == torch.bfloat16


def test_a_merged_checkpoint_says_that_its_state_is_not_mounted(saved):
    path = saved(v7(**{f"blocks.{i}.att.time_state": torch.ones(2, 8, 8) for i in range(2)}))
    with pytest.warns(UserWarning, match=r"model\.pth.*tuned state too, which is not mounted"):
        model = lab.load_model(path, device="cpu")
    assert lab.load_state(path, model).wkv.eq(1).all()
