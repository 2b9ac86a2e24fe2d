"""What stands around the operator in an RWKV-7 layer: norms, token shift, gates and a token's whole decode step."""

from wkv.layer.api import (
    decode,
    decode_one,
    fits,
    gates,
    gemv,
    lora_down,
    norm_mix,
    pack_ranks,
    read_out,
    squared_relu_,
)

__all__ = [
    "decode",
    "decode_one",
    "fits",
    "gates",
    "gemv",
    "lora_down",
    "norm_mix",
    "pack_ranks",
    "read_out",
    "squared_relu_",
]
