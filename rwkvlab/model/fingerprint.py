"""The fingerprint of a model: 256 sign bits that survive another dtype or container and differ for other weights."""

import hashlib

import numpy as np
import torch
from torch import Tensor

BITS = 256
SAMPLES = 512
SUFFIXES = ("emb.weight", "head.weight", "receptance.weight", "key.weight", "value.weight", "output.weight")


class Fingerprint:
    """Collects large weight matrices by their official names; `hex()` gives the 64 digits.

    From each matrix 512 evenly spaced cells, scaled to unit root mean square, go through 256 projections on random
    signs drawn from SHAKE-256 of the tensor's name; the bits are the signs of the sums over all matrices.
    """

    def __init__(self) -> None:
        self._sums = np.zeros(BITS)

    def add(self, key: str, tensor: Tensor) -> None:
        """Add one tensor of the checkpoint, in its official orientation; others than the large ones are ignored."""
        if not key.endswith(SUFFIXES):
            return
        flat = tensor.reshape(-1)
        count = min(SAMPLES, flat.numel())
        cells = torch.arange(count) * (flat.numel() - 1) // max(count - 1, 1)  # whole numbers: the same everywhere
        values = flat[cells.to(flat.device)].double().cpu().numpy()
        values = values / (np.sqrt(np.mean(values**2)) or 1.0)
        noise = hashlib.shake_256(b"rwkvlab fingerprint " + key.encode()).digest(len(values) * BITS // 8)
        signs = np.unpackbits(np.frombuffer(noise, np.uint8)).reshape(len(values), BITS)
        self._sums += values @ (signs * 2.0 - 1.0)

    def hex(self) -> str:
        """Return the fingerprint of what was added so far."""
        return np.packbits(self._sums > 0).tobytes().hex()
