"""Model runs: weights, tokenizers, the RWKV versions, and what one does with them."""
