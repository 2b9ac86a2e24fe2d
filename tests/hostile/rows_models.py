"""Rows 42, 43, 46 and 47, and the folders of Hugging Face: base models that lack, mismatch or poison their weights."""

import functools
import json

import builders as b
import torch
from builders import saved
from corpus import Case
from rows_states import V5, V6, V7

from rwkvlab.errors import FormatError, LimitError, MismatchError, NonFiniteError, PathError, SchemaError
from rwkvlab.model.engine import load_model
from rwkvlab.model.random_weights import random_weights
from rwkvlab.shapes import Dims

NAN, INF = float("nan"), float("inf")


def model(row, name, weights, error, words):
    return Case(row, f"{name}.pth", lambda _: saved(weights), error, words, by="model")


def without(weights, *parts):
    return {key: value for key, value in weights.items() if not any(part in key for part in parts)}


ROW_42 = [
    model(42, name, weights, SchemaError, words)
    for name, weights, words in [
        ("no_emb", without(V7, "emb."), "no emb.weight"),
        ("no_head", without(V7, "head."), "1 weights of RWKV-7 are missing: 'head.weight'"),
        ("no_ln_out", without(V7, "ln_out."), "'ln_out.weight', 'ln_out.bias'"),
        ("one_weight", without(V7, "blocks.1.att.k_a"), "'blocks.1.att.k_a'"),
        ("no_att_of_layer_1", without(V7, "blocks.1.att."), "blocks.1.att.v1: expected 2 axes, got no such tensor"),
        ("no_layer_0", without(V7, "blocks.0."), "not an RWKV base model"),
        ("only_emb", {"emb.weight": torch.ones(33, 16)}, "not an RWKV base model"),
        ("many", without(V7, "ln1", "ln2", "ffn.x_k", "att.x_", "ln_x"), "more"),
        ("no_maa", without(V6, "time_maa_w2"), "time_maa_w2: expected 3 axes"),
        ("no_gate", without(V6, "blocks.1.att.gate"), "'blocks.1.att.gate.weight'"),
        ("no_decay", without(V5, "blocks.1.att.time_decay"), "'blocks.1.att.time_decay'"),
        ("more", V7 | {"blocks.0.att.extra": torch.ones(1)}, "1 tensors are not part of RWKV-7"),
        ("ghost_layer", V7 | {"blocks.3.ln1.weight": torch.ones(16)}, "layer 2 is missing"),
        ("layers_1200", V7 | {f"blocks.{i}.ln1.weight": torch.ones(16) for i in range(2, 1200)}, "missing"),
        ("odd_digits", {k.replace("blocks.1", "blocks.\u0661"): v for k, v in V7.items()}, "not part of RWKV-7"),
    ]
]
ROW_43 = [
    model(43, name, V7 | changes, MismatchError, words)
    for name, changes, words in [
        ("head", {"head.weight": torch.ones(32, 16)}, "head.weight: expected [33, 16]"),
        ("emb_turned", {"emb.weight": torch.ones(16, 33)}, "width C=33"),
        ("vocab_0", {"emb.weight": torch.ones(0, 16), "head.weight": torch.ones(0, 16)}, "vocab=0"),
        ("r_k", {"blocks.1.att.r_k": torch.ones(4, 4)}, "blocks.1.att.r_k: expected [2, 8]"),
        ("r_k_of_layer_0", {"blocks.0.att.r_k": torch.ones(3, 8)}, "is not H=3 heads of 8"),
        ("ln", {"blocks.0.ln1.weight": torch.ones(15)}, "blocks.0.ln1.weight: expected [16]"),
        ("ffn", {"blocks.1.ffn.key.weight": torch.ones(23, 16)}, "blocks.1.ffn.key.weight: expected [24, 16]"),
        ("ffn_0", {"blocks.0.ffn.key.weight": torch.ones(0, 16)}, "ffn=0"),
        ("rank_0", {"blocks.0.att.w1": torch.ones(16, 0), "blocks.0.att.w2": torch.ones(0, 16)}, "ranks w 0"),
        ("rank_of_v_0", {"blocks.1.att.v1": torch.ones(16, 0), "blocks.1.att.v2": torch.ones(0, 16)}, "v 0"),
        ("ranks_differ", {"blocks.1.att.w1": torch.ones(16, 5)}, "blocks.1.att.w1: expected [16, 4]"),
        ("flat", {"blocks.0.att.key.weight": torch.ones(256)}, "expected [16, 16]"),
        ("scalar", {"blocks.0.att.key.weight": torch.ones(())}, "expected [16, 16]"),
        ("heads_0", {"blocks.0.att.r_k": torch.ones(0, 8)}, "H=0 heads"),
        ("v7a", {"blocks.0.ffn.s_emb.weight": torch.ones(2, 2)}, "RWKV-7a"),
        ("v7b", {"blocks.0.att.qkv.weight": torch.ones(2, 2)}, "RWKV-7b"),
        ("v8", {"blocks.0.ffn.enn.weight": torch.ones(2, 2)}, "RWKV-8"),
    ]
]
ROW_43 += [
    model(43, "rank_0_of_v6", V6 | {f"blocks.{i}.att.time_maa_w{n}": torch.ones(*((16, 0), (5, 0, 16))[n - 1])
                                    for i in (0, 1) for n in (1, 2)}, MismatchError, "ranks maa 0"),
    model(43, "axes", V7 | {"emb.weight": torch.ones(33)}, SchemaError, "emb.weight: expected 2 axes, got [33]"),
]  # fmt: skip


def poisoned(key, value, dtype=torch.float32, cell=-1, weights=V7):
    made = {name: tensor.clone().to(dtype) for name, tensor in weights.items()}
    made[key].view(-1)[cell] = value
    return made


ROW_46 = [
    model(46, name, weights, NonFiniteError, words)
    for name, weights, words in [
        ("nan", poisoned("head.weight", NAN), "head.weight: 1 values are NaN or infinite, the first at [32, 15]"),
        ("infinite", poisoned("blocks.1.ffn.value.weight", INF), "blocks.1.ffn.value.weight: 1 values"),
        ("minus", poisoned("blocks.0.att.w0", -INF, cell=0), "blocks.0.att.w0: 1 values"),
        ("half", poisoned("emb.weight", NAN, torch.float16), "emb.weight: 1 values"),
        ("bf16", poisoned("ln_out.bias", INF, torch.bfloat16), "ln_out.bias: 1 values"),
        ("double", poisoned("blocks.1.ln2.bias", NAN, torch.float64), "blocks.1.ln2.bias: 1 values"),
        ("v6", poisoned("blocks.1.att.time_faaaa", NAN, weights=V6), "blocks.1.att.time_faaaa: 1 values"),
    ]
]
BYTES = Dims("x070", L=2, H=2, C=16, K=8, V=8, ffn=24, vocab=257)
READER = random_weights(BYTES, {"w": 4, "a": 4, "v": 3, "g": 5})


def answer(path):
    load_model(path, tokenizer="bytes", device="cpu").generate("abc", max_tokens=3, temperature=0)


ROW_47 = [
    Case(47, f"{name}.pth", saved(READER | {key: torch.full_like(READER[key], 3e38)}), NonFiniteError, words, by=answer,
         names_file=False)
    for name, key, words in [
        ("ffn", "blocks.1.ffn.value.weight", "NaN"),
        ("head", "head.weight", "NaN"),
        ("emb", "emb.weight", "NaN"),
        ("value", "blocks.0.att.value.weight", "NaN"),
    ]
]  # fmt: skip
INDEX = "model.safetensors.index.json"
HF = {"model_type": "rwkv7", "norm_eps": 1e-5}


def folder(base, name, config=HF, index=None, **files):
    """A Hugging Face folder; texts and bytes are written as they are, other values as JSON."""
    place = base / name
    place.mkdir()
    for key, value in {"config.json": config, INDEX: index, **files}.items():
        if value is not None:
            raw = value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else json.dumps(value)
            (place / key).write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    return place


def hf(row, name, error, words, **options):
    make = functools.partial(folder, name=name, **options)
    return Case(row, name, make, error, words, by="model", names_file=False)


ONE = b.safe_of({"w": torch.ones(2)})
WHOLE = "model.safetensors"
FOLDERS = [
    hf(29, "no_config", PathError, "without config.json", config=None),
    hf(29, "llama", MismatchError, "need 'rwkv7', got 'llama'", config={"model_type": "llama"}),
    hf(29, "type_list", MismatchError, "model_type", config={"model_type": ["rwkv7"]}),
    hf(23, "config_cut", FormatError, "config.json': not JSON", config='{"model_type": "rwk'),
    hf(23, "config_deep", FormatError, "config.json': nested too deep", config='{"a":' + "[" * 100_000),
    hf(23, "config_list", FormatError, "config.json': need an object", config="[]"),
    hf(23, "config_utf16", FormatError, "config.json'", config='{"model_type": "rwkv7"}'.encode("utf-16")),
    hf(24, "config_twice", FormatError, "'model_type' is there twice",
       config='{"model_type":"rwkv7","model_type":"rwkv7"}'),
    hf(28, "config_many", LimitError, "config.json'", config='{"a":[' + "[]," * 2_000_000 + "[]]}"),
    hf(28, "config_large", LimitError, "config.json'", config='{"a":1}' + " " * (16 << 20)),
    hf(43, "other_eps", MismatchError, "norm_eps: need 1e-05", config=HF | {"norm_eps": "1e-5"}),
    hf(52, "no_weights", PathError, "has no model.safetensors"),
    hf(42, "two_ways", SchemaError, "remove the one that is out of date", index={}, **{WHOLE: ONE}),
    hf(3, "a_pickle_inside", FormatError, "is a pickle", **{WHOLE: b"\x80\x02cos\nsystem\n(X\x01\0\0\0xtR."}),
    hf(29, "a_pointer_inside", FormatError, "git-lfs", **{WHOLE: b"version https://git-lfs.github.com/spec/v1\n"}),
    hf(42, "other_weights", SchemaError, "'other_weights'", **{WHOLE: ONE}),
    hf(25, "index_empty", FormatError, "weight_map: need an object", index={}),
    hf(25, "index_list", FormatError, "weight_map: need an object", index={"weight_map": ["a"]}),
    hf(24, "index_twice", FormatError, "'a' is there twice", index='{"weight_map":{"a":"b.safetensors","a":"c"}}'),
    hf(6, "index_cut", FormatError, "index.json': not JSON", index='{"weight_map":{"a":'),
    hf(52, "shard_gone", PathError, "'b.safetensors' is not in", index={"weight_map": {"a": "b.safetensors"}}),
    hf(42, "shard_without_it", SchemaError, "'a' is not in it",
       index={"weight_map": {"a": "b.safetensors"}}, **{"b.safetensors": ONE}),
    hf(42, "shard_with_more", SchemaError, "'w' is in it, and not so in",
       index={"weight_map": {"a": "b.safetensors"}},
       **{"b.safetensors": b.safe_of({"a": torch.ones(1), "w": torch.ones(1)})}),
    hf(28, "shards_257", LimitError, "257 files",
       index={"weight_map": {str(i): f"{i}.safetensors" for i in range(257)}}),
]  # fmt: skip
OUTSIDE = [
    "../model.safetensors",
    "/etc/passwd",
    "..",
    "",
    "sub/x.safetensors",
    "sub\\x.safetensors",
    "C:x.safetensors",
]
OUTSIDE += [".h.safetensors", "a\0b.safetensors", "a\x1b[2J.safetensors", "x.bin", "x" * 300 + ".safetensors", None, 7]
FOLDERS += [
    hf(55, f"shard_outside_{index}", FormatError, "need the plain name of a .safetensors file in the folder",
       index={"weight_map": {"model.norm.weight" * 9: name}})
    for index, name in enumerate(OUTSIDE)
]  # fmt: skip
CASES = [*ROW_42, *ROW_43, *ROW_46, *ROW_47, *FOLDERS]
