"""Tensorfile reads and writes: .pth and safetensors files as plain tensors, strictly, and the atomic write."""

from rwkvlab.tensorfile.atomic import atomic_write
from rwkvlab.tensorfile.reader import TensorFile, read_tensors
from rwkvlab.tensorfile.writers import tensor_digest, write_pth, write_safetensors
