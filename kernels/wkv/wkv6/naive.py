"""WKV-6 one token at a time: the slow truth that every other backend is held to."""

import torch
from torch import Tensor


def wkv6_naive(r: Tensor, w: Tensor, k: Tensor, v: Tensor, u: Tensor, s0: Tensor) -> tuple[Tensor, Tensor]:
    """Shapes, names and the formula are those of `wkv.wkv6`; any float dtype, differentiable in all inputs."""
    s, ys = s0, []
    for t in range(r.shape[1]):
        r_t, w_t, k_t = (x[:, t, :, None, :] for x in (r, w, k))  # [B,H,1,K]
        v_t = v[:, t, :, :, None]  # [B,H,V,1]
        ys.append(((s + v_t * (u[None, :, None, :] * k_t)) * r_t).sum(-1))  # [B,H,V]
        s = s * w_t.exp() + v_t * k_t  # [B,H,V,K]
    return torch.stack(ys, dim=1) if ys else torch.zeros_like(v), s
