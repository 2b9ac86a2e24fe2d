"""Time decoding and prefill on the CPU beside PyPI's `rwkv` (fp32), at the 0.1B RWKV-7 geometry with random weights.

Run: .venv/bin/python tests/benchmarks/cpu_model.py [--threads 2] [--tokens 512] [--rounds 5]
Both models take turns, round by round; the table has each one's best and median round, and the error beside the speed.
"""

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

import rwkvlab as lab
from rwkvlab.model.random_weights import random_weights
from rwkvlab.shapes import Dims

GEOMETRY = Dims("x070", L=12, H=12, C=768, K=64, V=64, ffn=3072, vocab=65536)


def load_peer(path):
    os.environ |= {"RWKV_V7_ON": "1", "RWKV_JIT_ON": "1", "RWKV_CUDA_ON": "0"}
    with contextlib.redirect_stdout(io.StringIO()):
        from rwkv.model import RWKV

        return RWKV(str(path).removesuffix(".pth"), "cpu fp32")


def timed(function, *args):
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def decode_ours(model, tokens, flow):
    with torch.no_grad():
        for token in tokens:
            logits = model.run(torch.tensor([[token]]), flow)
    return logits[0]


def decode_theirs(peer, tokens, state):
    with torch.no_grad():
        for token in tokens:
            logits, state = peer.forward([token], state)
    return logits


def measure(path, threads=2, tokens=512, steps=32, rounds=5):
    """Return {"decode": (ours, theirs, error), "prefill": …}: seconds of each round, the largest logit error in std."""
    torch.set_num_threads(threads)
    model, peer = lab.load_model(path, device="cpu"), load_peer(path)
    ids = torch.randint(0, GEOMETRY.vocab, (tokens + steps,), generator=torch.Generator().manual_seed(0)).tolist()
    times = {"decode": ([], []), "prefill": ([], [])}
    for _ in range(rounds + 1):  # the first round warms up (TorchScript compiles in it)
        seconds, out = timed(lambda: model.forward(ids[:tokens], logits="last"))
        times["prefill"][0].append(seconds)
        with torch.no_grad():
            seconds, (want, state) = timed(lambda: peer.forward(ids[:tokens], None))
        times["prefill"][1].append(seconds)
        prefill_error = float((out.logits.view(-1) - want.view(-1)).abs().max() / want.std())
        flow = model.begin([out.state])
        seconds, logits = timed(decode_ours, model, ids[tokens:], flow)
        times["decode"][0].append(seconds)
        seconds, want = timed(decode_theirs, peer, ids[tokens:], state)
        times["decode"][1].append(seconds)
        decode_error = float((logits.view(-1) - want.view(-1)).abs().max() / want.std())
    errors = {"decode": decode_error, "prefill": prefill_error}
    return {name: (ours[1:], theirs[1:], errors[name]) for name, (ours, theirs) in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "RWKV-x070-random-0.1B.pth"
        torch.save(random_weights(GEOMETRY, seed=0), path)
        results = measure(path, options.threads, options.tokens, rounds=options.rounds)
    print(f"{GEOMETRY}, vocabulary {GEOMETRY.vocab}, fp32, {options.threads} threads, {options.rounds} rounds")
    print(f"{'':9}{'rwkvlab best/median':>22}{'rwkv best/median':>22}{'ratio of medians':>18}{'logit error / std':>19}")
    for name, (ours, theirs, error) in results.items():
        count = 32 if name == "decode" else options.tokens
        rates = [f"{count / min(x):.1f}/{count / statistics.median(x):.1f} tok/s" for x in (ours, theirs)]
        ratio = statistics.median(theirs) / statistics.median(ours)
        print(f"{name:9}{rates[0]:>22}{rates[1]:>22}{ratio:>17.2f}x{error:>19.1e}")


if __name__ == "__main__":
    main()
