"""WKV-7: the contract (api), the truth (naive) and the fast ways (chunked, triton_*)."""
