"""RWKV-7 at head size 64 agrees with PyPI's `rwkv7-hf` on the folder that its own converter writes."""

import pytest
import torch

import rwkvlab as lab
from rwkvlab.shapes import Dims

pytest.importorskip("rwkv7_hf", reason="rwkv7-hf is not installed")
TOLERANCE = 1e-4
DIMS = Dims("x070", L=3, H=2, C=128, K=64, V=64, ffn=512, vocab=101)


@pytest.fixture(scope="module")
def models(tmp_path_factory, checkpoint_file):
    from rwkv7_hf import RWKV7ForCausalLM
    from rwkv7_hf.converter import convert, parse_args

    path, _ = checkpoint_file(DIMS, {"w": 32, "a": 32, "v": 32, "g": 64})
    folder = tmp_path_factory.mktemp("hf")
    convert(parse_args(["--input", str(path), "--output", str(folder), "--precision", "fp32"]))
    theirs = RWKV7ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return lab.load_model(path, device="cpu"), theirs


def close(got, want):
    return float((got - want).abs().max() / want.std()) < TOLERANCE


def test_logits_and_states_agree_whole_and_continued(models):
    model, theirs = models
    tokens = torch.randint(0, DIMS.vocab, (2, 66), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first = theirs(tokens[:, :50], use_cache=True)
        cache = first.past_key_values
        second = theirs(tokens[:, 50:], past_key_values=cache, use_cache=True)
    ours = model.forward(tokens[:, :50])
    assert close(ours.logits, first.logits)
    more = model.forward(tokens[:, 50:], ours.states)
    assert close(more.logits, second.logits)


def test_a_cache_of_theirs_goes_on_here(models):
    model, theirs = models
    tokens = torch.randint(0, DIMS.vocab, (1, 60), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        cache = theirs(tokens[:, :40], use_cache=True).past_key_values.clone()
        want = theirs(tokens[:, 40:], past_key_values=cache.clone(), use_cache=True).logits
    state = lab.State.from_fla(
        cache.recurrent_state, like=model, att_shift=cache.attention_shift, ffn_shift=cache.ffn_shift
    )
    assert close(model.forward(tokens[:, 40:], state).logits, want)
    turned = lab.State.from_fla([heads.mT for heads in cache.recurrent_state], like=model)
    assert not close(model.forward(tokens[:, 40:], turned).logits, want)
