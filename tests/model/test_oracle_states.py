"""The state that PyPI's `rwkv` ends in goes on here, whichever program's format it was saved in."""

import json

import numpy as np
import pytest
import torch

import rwkvlab as lab

TOLERANCE = 1e-4  # of the standard deviation of the logits


@pytest.fixture
def case(geometry, checkpoint_file, oracle):
    """Our model, the oracle's state after a text, and its logits on what follows."""
    dims, ranks = geometry
    path, _ = checkpoint_file(dims, ranks)
    theirs = oracle(path, dims.arch)
    tokens = torch.randint(0, dims.vocab, (45,), generator=torch.Generator().manual_seed(6)).tolist()
    with torch.no_grad():
        _, state = theirs.forward(tokens[:25], None)
        kept = [tensor.clone() for tensor in state]
        logits, _ = theirs.forward(tokens[25:], state, full_output=True)
    return lab.load_model(path, device="cpu"), kept, tokens[25:], logits


def in_heads(kept, dims):
    """Attention shift [C], matrices [H,K,V] and ffn shift [C] of each layer, as float32 arrays."""
    for i in range(dims.L):
        heads = kept[3 * i + 1].reshape(dims.H, dims.K, dims.V).float().numpy()
        heads = heads.swapaxes(1, 2) if dims.arch == "x070" else heads
        yield kept[3 * i].float().numpy(), heads, kept[3 * i + 2].float().numpy()


def as_list(kept, dims, path):
    torch.save(kept, path)
    return {}


def as_json(kept, dims, path):
    """web-rwkv's [C, N+2, L], the first axis the fastest."""
    grid = np.zeros((dims.L, dims.K + 2, dims.C), np.float32)
    for i, (att, heads, ffn) in enumerate(in_heads(kept, dims)):
        grid[i, 0], grid[i, -1] = att, ffn
        for h in range(dims.H):
            for k in range(dims.K):
                grid[i, 1 + k, h * dims.V : (h + 1) * dims.V] = heads[h, k]
    item = {"object": "states", "index": 0, "data": [float(x) for x in grid.ravel()]}
    item["shape"] = [dims.C, dims.K + 2, dims.L, 1]
    path.write_text(json.dumps({"object": "list", "model": "m.st", "data": [item], "usage": {"total": 3}}))
    return {}


def as_buffer(kept, dims, path):
    """rwkv.cpp's order: ffn shift, attention shift, and the heads as the `rwkv` package has them."""
    parts = []
    for i, (att, _, ffn) in enumerate(in_heads(kept, dims)):
        parts += [ffn, att, kept[3 * i + 1].float().numpy().ravel()]
    np.concatenate(parts).astype("<f4").tofile(path)
    return {"format": "rwkv.cpp"}


@pytest.mark.parametrize("save", [as_list, as_json, as_buffer])
def test_the_official_packages_state_goes_on_here(case, save, tmp_path):
    model, kept, tokens, logits = case
    path = tmp_path / "kept.bin"
    state = lab.load_state(path, model, **save(kept, model.dims, path))
    for i, (att, heads, ffn) in enumerate(in_heads(kept, model.dims)):
        assert np.array_equal(state.att_shift[i], att)
        assert np.array_equal(state.wkv[i].mT, heads)
        assert np.array_equal(state.ffn_shift[i], ffn)
    got = model.forward(tokens, state).logits[0]
    assert float((got - logits).abs().max() / logits.std()) < TOLERANCE
    turned = model.forward(tokens, state.replace(wkv=state.wkv.mT)).logits[0]
    assert float((turned - logits).abs().max() / logits.std()) > 100 * TOLERANCE
