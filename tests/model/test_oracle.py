"""RWKV-5.2, 6 and 7 agree with PyPI's `rwkv` in logits and states, and every weight and the state's orientation count.

The tolerance is the issue of trust: 1e-4 of the standard deviation of what is compared.
"""

import pytest
import torch

import rwkvlab as lab
from rwkvlab.model.engine import Model
from rwkvlab.model.weights import Checkpoint

TOLERANCE = 1e-4
TOKENS = 70


@pytest.fixture
def case(geometry, checkpoint_file, oracle):
    dims, ranks = geometry
    path, weights = checkpoint_file(dims, ranks)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, dims.vocab, (TOKENS,), generator=generator).tolist()
    return lab.load_model(path, device="cpu"), oracle(path, dims.arch), weights, tokens


def random_state(model, seed=2):
    generator = torch.Generator().manual_seed(seed)
    dims = model.dims

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    return lab.State(
        draw(dims.L, dims.H, dims.V, dims.K),
        like=model,
        att_shift=draw(dims.L, dims.C),
        ffn_shift=draw(dims.L, dims.C),
    )


def to_oracle(state, arch):
    """The 3L run-time list: RWKV-7 keeps [H,V,K], the older ones [H,K,V]."""
    out = []
    for i in range(len(state.wkv)):
        wkv = state.wkv[i] if arch == "x070" else state.wkv[i].mT
        out += [state.att_shift[i].clone(), wkv.contiguous().clone(), state.ffn_shift[i].clone()]
    return out


def assert_close(got, want):
    want = want.reshape(got.shape)
    error = float((got - want).abs().max() / want.std())
    assert error < TOLERANCE, error


def assert_state_agrees(state, theirs, arch):
    layers = range(len(state.wkv))
    for i in layers:
        wkv = theirs[3 * i + 1].reshape(state.wkv[i].shape if arch == "x070" else state.wkv[i].mT.shape)
        assert_close(state.wkv[i], wkv if arch == "x070" else wkv.mT)
        assert_close(state.att_shift[i], theirs[3 * i])
        assert_close(state.ffn_shift[i], theirs[3 * i + 2])


@pytest.mark.parametrize("mounted", [False, True], ids=["from-zeros", "mounted"])
def test_logits_and_states_agree_with_the_official_package(case, mounted):
    model, theirs, _, tokens = case
    start = random_state(model) if mounted else model.zero()
    out = model.forward(tokens, start)
    state = to_oracle(start, model.dims.arch)
    with torch.no_grad():
        logits, state = theirs.forward(tokens, state, full_output=True)
    assert_close(out.logits[0], logits)
    assert_state_agrees(out.state, state, model.dims.arch)


@pytest.mark.parametrize("mounted", [False, True], ids=["from-zeros", "mounted"])
def test_pieces_agree_with_the_official_package_token_by_token(case, mounted):
    model, theirs, _, tokens = case
    state = random_state(model) if mounted else model.zero()
    their_state = to_oracle(state, model.dims.arch)
    got, want = [], []
    for piece in (tokens[:1], tokens[1:2], tokens[2:3], tokens[3:40], tokens[40:42], tokens[42:]):
        out = model.forward(piece, state)
        state = out.state
        got.append(out.logits[0])
    with torch.no_grad():
        for token in tokens:
            logits, their_state = theirs.forward([token], their_state)
            want.append(logits.reshape(-1))
    assert_close(torch.cat(got), torch.stack(want))
    assert_state_agrees(state, their_state, model.dims.arch)


def test_zeroing_any_one_weight_moves_the_logits(case):
    model, _, weights, tokens = case
    start = random_state(model)
    truth = model.forward(tokens, start).logits
    silent = []
    for key in weights:
        changed = weights | {key: torch.zeros_like(weights[key])}
        moved = Model(Checkpoint(model.dims, changed, model.card.fingerprint), "changed").forward(tokens, start).logits
        if float((moved - truth).abs().max() / truth.std()) < 10 * TOLERANCE:
            silent.append(key)
    assert silent == []


def test_transposing_the_mounted_state_moves_the_logits_by_a_tenth(case):
    model, _, _, tokens = case
    start = random_state(model)
    truth = model.forward(tokens, start).logits
    moved = model.forward(tokens, start.replace(wkv=start.wkv.mT)).logits
    assert float((moved - truth).square().mean().sqrt() / truth.std()) > 0.1


def test_a_batch_equals_its_rows_one_by_one(case):
    model, _, _, tokens = case
    starts = [None, random_state(model), random_state(model, 3)]
    rows = [tokens[:30], tokens[10:40], tokens[40:70]]
    batch = model.forward(rows, starts)
    for row, (ids, start) in enumerate(zip(rows, starts, strict=True)):
        alone = model.forward(ids, start)
        assert_close(batch.logits[row], alone.logits[0])
        for part in ("wkv", "att_shift", "ffn_shift"):
            assert_close(getattr(batch.states[row], part), getattr(alone.state, part))


def test_forward_is_differentiable_in_the_state(case):
    model, _, _, tokens = case
    start = random_state(model)
    leaves = [x.clone().requires_grad_() for x in (start.wkv, start.att_shift, start.ffn_shift)]
    state = start.replace(wkv=leaves[0], att_shift=leaves[1], ffn_shift=leaves[2])
    logits = model.forward(tokens[:20], state).logits
    weight = torch.randn(logits.shape, generator=torch.Generator().manual_seed(4))
    grads = torch.autograd.grad((logits * weight).sum(), leaves)
    for index, (leaf, grad) in enumerate(zip(leaves, grads, strict=True)):
        direction = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(5))
        h = 1e-2

        def value(sign, index=index, direction=direction, h=h):
            moved = [x.detach() + (sign * h * direction if i == index else 0) for i, x in enumerate(leaves)]
            state = start.replace(wkv=moved[0], att_shift=moved[1], ffn_shift=moved[2])
            return float((model.forward(tokens[:20], state).logits.double() * weight.double()).sum())

        numeric = (value(+1) - value(-1)) / (2 * h)
        analytic = float((grad * direction).sum())
        scale = float(grad.norm() * direction.norm()) / direction.numel() ** 0.5
        assert abs(numeric - analytic) < 2e-2 * max(abs(analytic), scale)
