"""WKV-7 one token at a time: the slow truth that every other backend is held to."""

import torch
from torch import Tensor


def wkv7_naive(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, s0: Tensor) -> tuple[Tensor, Tensor]:
    """Shapes, names and the formula are those of `wkv.wkv7`; any float dtype, differentiable in all inputs."""
    s, ys = s0, []
    for t in range(r.shape[1]):
        r_t, w_t, k_t, a_t, b_t = (x[:, t, :, None, :] for x in (r, w, k, a, b))  # [B,H,1,K]
        read = (s * a_t).sum(-1, keepdim=True)  # [B,H,V,1]
        s = s * w_t.exp() + read * b_t + v[:, t, :, :, None] * k_t  # [B,H,V,K]
        ys.append((s * r_t).sum(-1))  # [B,H,V]
    return torch.stack(ys, dim=1) if ys else torch.zeros_like(v), s
