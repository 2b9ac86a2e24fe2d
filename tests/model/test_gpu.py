"""On a CUDA GPU the models say what they say on the CPU: reading, decoding, batches, and mounted states."""

import threading

import pytest
import torch

import rwkvlab as lab
from rwkvlab.bundled.shelf import bundled
from rwkvlab.model import graphs
from rwkvlab.model.parts import Way
from rwkvlab.tasks.builtin import micro_tasks
from rwkvlab.tasks.styleworld import world_tasks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

ORDINARY = Way(tap=lambda *_: None)  # what reports on the way goes neither through fused kernels nor through graphs


@pytest.fixture
def both(geometry, checkpoint_file):
    torch.backends.cuda.matmul.allow_tf32 = False
    path, _ = checkpoint_file(*geometry)
    return lab.load_model(path, device="cpu"), lab.load_model(path, device="cuda")


@pytest.fixture(scope="module")
def micro():
    """The bundled model on the CPU and, in bf16, on the GPU; and its states."""
    model, shelf = bundled()
    models = [
        lab.load_model(model.recipe.path, device=device, dtype=dtype, tokenizer=model.tokenizer)
        for device, dtype in (("cpu", "fp32"), ("cuda", "fp32"), ("cuda", "bf16"))
    ]
    return *models, shelf


def close(got, want, bound=1e-4):
    return float((got.cpu() - want).abs().max() / want.std()) < bound


def random_state(model, seed=0):
    return lab.State(torch.randn(model.zero().wkv.shape, generator=torch.Generator().manual_seed(seed)), like=model)


def test_reading_decoding_and_mounting_agree_with_the_cpu(both):
    cpu, gpu = both
    state = random_state(cpu)
    tokens = [i * 5 % cpu.dims.vocab for i in range(90)]
    want, got = cpu.forward(tokens, state), gpu.forward(tokens, state)
    assert close(got.logits, want.logits)
    assert close(got.state.wkv, want.state.wkv)
    assert got.state.wkv.device.type == "cpu"
    for token in tokens[:5]:
        want, got = cpu.forward([token], want.state), gpu.forward([token], got.state)
        assert close(got.logits, want.logits)
    batch = gpu.forward([tokens[:20], tokens[20:40]], [None, state])
    assert close(batch.logits[1], cpu.forward(tokens[20:40], state).logits[0])


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3, 20])
def test_rows_of_different_states_are_decoded_in_a_graph_as_on_the_cpu(both, rows):
    cpu, gpu = both
    states = [None if row % 3 == 1 else random_state(cpu, row) for row in range(rows)]
    kept = [None if one is None else one.wkv.clone() for one in states]
    flows = cpu.begin(states), gpu.begin(states)
    for at in range(12):
        ids = (torch.arange(rows)[:, None] * 7 + at) % cpu.dims.vocab
        want, got = cpu.run(ids, flows[0]), gpu.run(ids, flows[1])
        assert close(got, want)
    slot = gpu._engine._graphs._slots[0]
    assert slot.holds(flows[1]) and slot.has(rows)
    for got, want in zip((*flows[1].wkv, *flows[1].att), (*flows[0].wkv, *flows[0].att), strict=True):
        assert close(got, want)
    assert all(one is None or one.wkv.equal(x) for one, x in zip(states, kept, strict=True))
    # a longer text in between, and rows that leave
    ids = torch.arange(2 * rows).view(rows, 2) % cpu.dims.vocab
    want, got = cpu.run(ids, flows[0], "all"), gpu.run(ids, flows[1], "all")
    assert close(got, want)
    keep = list(range(0, rows, 2))
    flows = [flow.pick(keep) for flow in flows]
    for _ in range(3):
        assert close(gpu.run(ids[keep, :1], flows[1]), cpu.run(ids[keep, :1], flows[0]))


@torch.no_grad()
def test_logits_and_states_that_were_given_out_stay(both):
    gpu = both[1]
    flow = gpu.begin([None])
    out = [gpu.run(torch.tensor([[at]]), flow) for at in range(6)]
    kept = [x.clone() for x in out]
    for _ in range(3):
        gpu.run(torch.tensor([[1]]), flow)
    assert all(x.equal(y) for x, y in zip(out, kept, strict=True))
    with torch.inference_mode():
        gpu.run(torch.tensor([[1], [1]]), gpu.begin([None, None]))
    assert gpu.forward([1, 2]).logits.isfinite().all()


def test_the_gradient_of_the_state_agrees_with_the_cpu(both):
    grads = []
    for model in both:
        wkv = torch.randn(model.zero().wkv.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        model.forward(list(range(30)), lab.State(wkv, like=model)).logits.square().mean().backward()
        grads.append(wkv.grad)
    assert close(grads[1], grads[0], 1e-3)


def gradient(model, recompute):
    """Of a state, read by 70 tokens of two rows; computed again on the way back it goes through fused kernels."""
    wkv = random_state(model).wkv.requires_grad_()
    ids = (torch.arange(140).view(2, 70) * 5) % model.dims.vocab
    flow = model.begin([lab.State(wkv, like=model)] * 2)
    x = model.hidden(ids, flow, torch.ones_like(ids, dtype=torch.bool), Way(recompute=recompute))
    model.head(x).float().log_softmax(-1)[:, 7].sum().backward()
    return wkv.grad


def test_layers_computed_again_give_the_gradients_of_autograd(both, geometry, checkpoint_file):
    path, _ = checkpoint_file(*geometry)
    cpu, gpu = both
    want = gradient(cpu, False)
    for recompute in (False, True):
        assert close(gradient(gpu, recompute), want, 1e-3)
    for dtype in ("bf16", "fp16"):
        half = lab.load_model(path, device="cuda", dtype=dtype)
        plain, again = (float((gradient(half, way).cpu() - want).norm() / want.norm()) for way in (False, True))
        assert again < 1.2 * plain


def test_a_trace_is_that_of_the_cpu(both):
    tokens = [i * 3 % both[0].dims.vocab for i in range(40)]
    want, got = (model.trace(tokens, every=16, keep=("state", "k", "y")) for model in both)
    assert all(close(got[name], want[name]) for name in ("state", "k", "y"))


def test_half_precision_loses_no_more_than_on_the_cpu(both, geometry, checkpoint_file):
    path, _ = checkpoint_file(*geometry)
    tokens = list(range(30))
    want = both[0].forward(tokens).logits
    for dtype in ("bf16", "fp16"):
        errors = {}
        for device in ("cpu", "cuda"):
            got = lab.load_model(path, device=device, dtype=dtype).forward(tokens).logits.cpu()
            errors[device] = float((got - want).norm() / want.norm())
        assert errors["cuda"] < 1.5 * errors["cpu"]


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_in_a_graph_loses_no_more_than_the_ordinary_pass(both, geometry, checkpoint_file, dtype):
    path, _ = checkpoint_file(*geometry)
    cpu, model = both[0], lab.load_model(path, device="cuda", dtype=dtype)
    for rows in (1, 6):
        ids = torch.arange(rows * 10).view(rows, 10) % cpu.dims.vocab
        runs = []
        for one, way in ((cpu, None), (model, None), (model, ORDINARY)):
            flow = one.begin([random_state(cpu, row) for row in range(rows)])
            runs.append(torch.stack([one.run(token, flow, way=way).cpu() for token in ids.split(1, dim=1)]))
        want, got, ordinary = runs
        assert float((got - want).norm()) < 1.3 * float((ordinary - want).norm())


def answers(model, shelf, **options):
    prompts = [prompt for task in micro_tasks(20, 9) for prompt in task.prompts]
    states = [state for state in shelf.values() for _ in range(20)]
    return model.generate_batch(prompts, states, max_tokens=12, **options)


def test_the_bundled_model_writes_the_same_text_greedily(micro):
    cpu, gpu, half, shelf = micro
    want = [one.text for one in answers(cpu, shelf, temperature=0)]
    assert [one.text for one in answers(gpu, shelf, temperature=0)] == want
    assert [one.text for one in answers(half, shelf, temperature=0)] == want
    alone = [half.generate("fbeac>", state, temperature=0, max_tokens=12).text for state in shelf.values()]
    assert alone == [cpu.generate("fbeac>", state, temperature=0, max_tokens=12).text for state in shelf.values()]


def test_seeds_draw_what_they_draw_on_the_cpu(micro):
    cpu, gpu, _, shelf = micro
    seeds = list(range(120))
    want, got = (answers(model, shelf, seed=seeds, top_p=1.0, presence=0.5) for model in (cpu, gpu))
    same = sum(x.tokens == y.tokens for x, y in zip(want, got, strict=True))
    assert same >= 118  # a number that falls between two tokens within the rounding may go either way


def test_threads_do_not_disturb_one_another(micro):
    _, gpu, _, shelf = micro
    states = list(shelf.values())
    want = [gpu.generate("fbeac>", state, temperature=0, ban=[0], max_tokens=60) for state in states]
    got = {}

    def work(at):
        got[at] = gpu.generate("fbeac>", states[at], temperature=0, ban=[0], max_tokens=60)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(states))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for at, one in enumerate(want):
        assert got[at].tokens == one.tokens and close(got[at].state.wkv, one.state.wkv)


def test_a_model_goes_on_after_an_exception_and_after_a_stop(micro):
    _, gpu, _, shelf = micro
    state = shelf["sort"]
    options = {"temperature": 0, "ban": [0], "max_tokens": 40}
    want = gpu.generate("fbeac>", state, **options)

    def fails(piece):
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        gpu.generate("fbeac>", state, on_text=fails, **options)
    cancel = threading.Event()
    part = gpu.generate("fbeac>", state, on_text=lambda _: cancel.set(), cancel=cancel, **options)
    assert part.finish == "cancelled" and part.tokens == want.tokens[: len(part.tokens)]
    again = gpu.generate("fbeac>", state, **options)
    assert again.tokens == want.tokens and close(again.state.wkv, want.state.wkv)


def test_graphs_stay_within_their_number_and_memory(micro):
    _, gpu, _, shelf = micro
    state = shelf["sort"]
    options = {"temperature": 0, "ban": [0], "max_tokens": 6}
    for _ in range(2):
        for rows in range(1, 90, 4):
            gpu.generate_batch(["fbeac>"] * rows, state, **options)
        torch.cuda.synchronize()
        used = torch.cuda.memory_allocated()
    for rows in range(1, 90, 4):
        gpu.generate_batch(["fbeac>"] * rows, state, **options)
    assert torch.cuda.memory_allocated() <= used + 2**20
    slots = gpu._engine._graphs._slots
    assert len(slots) <= graphs.SLOTS and all(len(slot._graphs) <= graphs.KEPT for slot in slots)


@pytest.mark.parametrize("name", ["rwkv7", "rwkv6"])
@pytest.mark.parametrize("rows", [4, 200])
def test_tuning_in_bf16_goes_the_way_that_it_goes_on_a_cpu(name, rows):
    """Answers alone count, so that most tokens have no gradient; 200 rows have heads enough to fill a GPU."""
    gpu, _ = bundled(name)
    cpu = lab.load_model(gpu.recipe.path, device="cpu", dtype="fp32", tokenizer=gpu.tokenizer)
    (task,) = world_tasks(rows, held_out=False, styles=("emoji",))
    losses = []
    for model in (cpu, gpu):
        steps = []
        state = lab.tune(model, task.examples(), steps=3, batch=rows, lr=0.01, on_step=steps.append)
        losses.append([step.loss for step in steps])
        assert state.wkv.isfinite().all()
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
