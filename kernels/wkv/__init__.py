"""The WKV operators of RWKV-6 and RWKV-7: tensors in, tensors out."""

from wkv.wkv6.api import wkv6, wkv6_step
from wkv.wkv7.api import wkv7, wkv7_step

__all__ = ["wkv6", "wkv6_step", "wkv7", "wkv7_step"]
