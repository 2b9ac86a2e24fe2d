"""Time the measures on this machine's CPU, beside what is asked of them; `--threads N` (default: all cores)."""

import argparse
import time

import torch

import rwkvlab as lab
from rwkvlab.tasks.builtin import micro_tasks


def timed(what, limit, run):
    """Print the median of three runs after a first one, beside what is asked, all in seconds."""
    run()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    asked = f"  asked {limit} s" if limit else ""
    print(f"{what:58s} {sorted(times)[1]:7.3f} s{asked}", flush=True)


def main():
    """Run every measure once for warmth and three times for the clock."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    model, shelf = lab.bundled()
    tasks = {task.name: task for task in micro_tasks(100)}
    a, b = shelf["reverse"], shelf["sort"]
    text = "\n".join(prompt + answer for prompt, answer in tasks["sort"].examples())
    ids = model.encode(text)
    pair = [tasks["reverse"], tasks["sort"]]
    other = lab.bundled(seed=1)[1]["sort"]
    ts = [t / 20 for t in range(21)]
    generator = torch.Generator().manual_seed(0)
    large, second = (lab.State(torch.randn(32, 64, 64, 64, generator=generator)) for _ in "ab")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; bundled model and states, 7B states random")
    timed("patch_map, every head both ways, one prompt of 64 tokens", 2, lambda: lab.patch_map(model, [ids[:64]], a, b))
    timed("sweep, 21 points, 200 examples, five arms", 30, lambda: lab.sweep(model, pair, a, b, ts, other=other))
    timed("spectrum of a 7B state (L32 H64 K64)", 10, lambda: lab.spectrum(large))
    timed("head_distance of two 7B states", None, lambda: lab.head_distance(large, second))
    timed("repr and HTML of a 7B state", 0.05, lambda: (repr(large), large._repr_html_()))
    timed("influence along 1,000 tokens", None, lambda: lab.influence(model, ids[:1000], b))


if __name__ == "__main__":
    main()
