"""The script that runs PyPI's `rwkv` in a process of its own, for `official`; it is started, never imported."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch


def main(folder: Path) -> None:
    """Read the request in `folder`, run the official package from every start, write the logits [T,vocab] beside it.

    request.json holds model (a path without ".pth"), tokens, threads and starts (how many); start i is wkv{i}.npy
    [L,H,…] in the order of the package, att{i}.npy and ffn{i}.npy [L,C]. Environment variables that the package reads
    when it is imported have been set by the caller.
    """
    from rwkv.model import RWKV

    torch.load = exact(torch.load)
    request = json.loads((folder / "request.json").read_text("utf-8"))
    torch.set_num_threads(request["threads"])
    model = RWKV(request["model"], "cpu fp32")
    with torch.no_grad():
        for number in range(request["starts"]):
            parts = [torch.from_numpy(np.load(folder / f"{name}{number}.npy")) for name in ("att", "wkv", "ffn")]
            state = [part.contiguous().clone() for layer in zip(*parts, strict=True) for part in layer]
            logits, _ = model.forward(request["tokens"], state, full_output=True)
            np.save(folder / f"logits{number}.npy", logits.float().numpy())


def exact(load: Any) -> Any:
    """Return `load` with the embedding and its norm in fp32: for RWKV-5 and 6 the package multiplies both as stored."""

    def loaded(*args: Any, **options: Any) -> Any:
        weights = load(*args, **options)
        names = ("emb.weight", "blocks.0.ln0.weight", "blocks.0.ln0.bias")
        return weights | {name: weights[name].float() for name in names if name in weights}

    return loaded


if __name__ == "__main__":
    main(Path(sys.argv[1]))
