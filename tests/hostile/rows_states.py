"""Rows 31, 32, 34 to 36, 38, 39, 44 and 45: states whose numbers, layers, shapes or names are not those of a state."""

import functools
import json
import struct

import builders as b
import torch
from builders import STATE, heads, saved
from corpus import DIMS, MODEL, Case
from rows_safetensors import ours

from rwkvlab.errors import (
    FormatError,
    LimitError,
    MismatchError,
    NonFiniteError,
    SaveError,
    SchemaError,
    UnsafeFileError,
)
from rwkvlab.model.random_weights import random_weights
from rwkvlab.shapes import Dims
from rwkvlab.states.files import load_state, save_state

ANY = "peek state fit"
LOAD = "state fit"
NAN, INF = float("nan"), float("inf")
SIGNALLING = torch.frombuffer(bytearray(struct.pack("<I", 0x7F800001)), dtype=torch.float32)[0]


def with_cell(value, layer=1, cell=(1, 7, 7), dtype=torch.float32):
    made = {key: tensor.to(dtype) for key, tensor in heads().items()}
    made[f"blocks.{layer}.att.time_state"][cell] = value
    return made


def pth(name, row, tensors, error, words, by=ANY, **options):
    return Case(row, f"{name}.pth", lambda _: saved(tensors, **options), error, words, by=by)


def safetensors(name, row, tensors, error, words, by=ANY, metadata=None):
    return Case(row, name, b.safe_of(tensors, metadata), error, words, by=by)


ROW_31 = [
    pth(name, 31, tensors, NonFiniteError, words, by=LOAD)
    for name, tensors, words in [
        ("nan_in_the_last_cell", with_cell(NAN), "blocks.1.att.time_state: 1 of 128 values"),
        ("nan_in_the_first", with_cell(NAN, 0, (0, 0, 0)), "the first at [0, 0, 0]"),
        ("infinite", with_cell(INF), "the first at [1, 7, 7]"),
        ("minus_infinite", with_cell(-INF), "1 of 128 values are NaN or infinite"),
        ("signalling", with_cell(SIGNALLING), "1 of 128"),
        ("nan_half", with_cell(NAN, dtype=torch.float16), "1 of 128"),
        ("nan_bf16", with_cell(NAN, dtype=torch.bfloat16), "1 of 128"),
        ("nan_double", with_cell(NAN, dtype=torch.float64), "1 of 128"),
        ("all_nan", heads(_1=torch.full((2, 8, 8), NAN)), "128 of 128"),
        ("beyond_fp32", with_cell(1e300, dtype=torch.float64), "1 of 128"),
    ]
]  # fmt: skip
ROW_31 += [
    safetensors("nan.state", 31, with_cell(NAN, dtype=torch.float16), NonFiniteError, "1 of 128", by=LOAD),
    Case(31, "nan_in_a_shift.pth", saved([torch.full((16,), NAN), torch.ones(2, 8, 8), torch.ones(16)]),
         NonFiniteError, "item 0 of its list: 16 of 16", by="fit"),
    Case(31, "nan.json", b'{"data":[1,NaN,3],"shape":[1,3,1,1]}', NonFiniteError, "data: 1 of 3", by="state"),
]  # fmt: skip


def export(path, suffix=".state"):
    """Read a state and write it as Ai00 wants it, beside the file."""
    save_state(load_state(path), path.with_name("out" + suffix))


def _export(name, value):
    return Case(32, f"{name}.pth", saved(with_cell(value)), SaveError, "65504", by=export, names_file=False)


ROW_32 = [_export("e70000", 70_000.0), _export("e3e38", 3e38), _export("minus", -65_520.0), _export("edge", 65_505.0)]
GAPS = {
    "gap": [0, 2],
    "no_first": [1, 2],
    "only_9999": [9999],
    "far": [0, 9999],
    "late": [5, 6, 7],
    "every_other": [0, 2, 4],
}
ONE = heads()[STATE]
ROW_34 = [
    pth(name, 34, {f"blocks.{i}.att.time_state": ONE.clone() for i in layers}, SchemaError, "missing below layer")
    for name, layers in GAPS.items()
]
ROW_34 += [
    pth("extra_key", 34, heads() | {"note": torch.ones(1)}, SchemaError, "'note'"),
    pth("extra_layer", 34, heads(3), MismatchError, "L=3 (model 2)", by="fit"),
    pth("one_layer", 34, heads(1), MismatchError, "L=1 (model 2)", by="fit"),
    pth("layers_1200", 34, {f"blocks.{i}.att.time_state": torch.ones(2, 8, 8) for i in range(1200)},
        MismatchError, "L=1200 (model 2)", by="fit"),
    pth("of_another_part", 34, {"blocks.0.ffn.time_state": ONE}, SchemaError, "odd keys"),
]  # fmt: skip
ROW_35 = [
    pth(name, 35, {f"blocks.{i}.att.time_state": tensor.clone() for i, tensor in enumerate(layers)},
        MismatchError, words, by=by)
    for name, layers, words, by in [
        ("other_head_size", [torch.ones(1, 16, 16)] * 2, "H=1 (model 2), V=16 (model 8)", "fit"),
        ("other_heads", [torch.ones(4, 8, 8)] * 2, "H=4 (model 2)", "fit"),
        ("oblong", [torch.ones(2, 8, 4)] * 2, "K=4 (model 8)", "fit"),
        ("flat", [torch.ones(128)] * 2, "expected [H,V,K] as in every layer, got [128]", ANY),
        ("scalar", [torch.ones(())] * 2, "got []", ANY),
        ("layers_differ", [torch.ones(2, 8, 8), torch.ones(2, 8, 9)], "expected [2, 8, 8]", ANY),
        ("equal_size", [torch.ones(2, 8, 8), torch.ones(8, 2, 8)], "got [8, 2, 8]", ANY),
        ("no_heads", [torch.ones(0, 8, 8)] * 2, "got [0, 8, 8]", ANY),
        ("no_values", [torch.ones(2, 0, 8)] * 2, "got [2, 0, 8]", ANY),
        ("eight_axes", [torch.ones(1, 1, 1, 1, 1, 2, 8, 8)] * 2, "expected [H,V,K]", ANY),
    ]
]  # fmt: skip
FLAT = [torch.ones(16), torch.ones(2, 8, 8), torch.ones(16)]


def runtime(name, items, error, words, by="fit"):
    own = [item.clone() if isinstance(item, torch.Tensor) else item for item in items]
    return Case(36, f"{name}.pth", saved(own), error, words, by=by)


ROW_36 = [
    pth("batched", 36, {f"blocks.{i}.att.time_state": torch.ones(1, 2, 8, 8) for i in range(2)},
        MismatchError, "[1, 2, 8"),
    pth("two_axes", 36, {f"blocks.{i}.att.time_state": torch.ones(16, 8) for i in range(2)}, MismatchError, "[16, 8]"),
    pth("stacked", 36, {"time_state": torch.ones(2, 2, 8, 8)}, SchemaError, "odd keys 'time_state'"),
    pth("wrapped", 36, {"state_dict": heads()}, FormatError, "'state_dict': is a dict (its tensors are one level"),
    pth("with_a_number", 36, heads() | {"epoch": 3}, FormatError, "'epoch': is a int, need a tensor"),
    pth("with_a_text", 36, heads() | {"arch": "x070"}, FormatError, "'arch': is a str"),
    pth("one_tensor", 36, ONE, SchemaError, "one tensor without a name"),
    pth("a_tuple", 36, (ONE, ONE.clone()), FormatError, "holds a tuple"),
    pth("v5_tuner", 36, {"blocks.0.att.wkvstate": ONE}, SchemaError, "wkvstate"),
    pth("offsets", 36, {"blocks.0.att.time_offset": torch.ones(16)}, SchemaError, "time_offset"),
    runtime("list_of_4", [*FLAT, torch.ones(16)], SchemaError, "list of 4 tensors", ANY),
    runtime("list_of_vectors", [torch.ones(16)] * 6, SchemaError, "list of 6 tensors", ANY),
    runtime("list_of_rwkv4", [torch.ones(16)] * 15, SchemaError, "RWKV-4", ANY),
    runtime("list_alone", FLAT * 2, SchemaError, "pass model=", "peek state"),
    runtime("list_of_one_layer", FLAT, MismatchError, "L=1 (model 2)"),
    runtime("list_short_shift", [*FLAT, torch.ones(16), ONE, torch.ones(15)], MismatchError, "item 5 of its list"),
    runtime("list_batched_shift", [torch.ones(1, 16), ONE, torch.ones(16)], MismatchError, "item 0 of its list"),
    runtime("list_odd_order", [ONE, torch.ones(16), torch.ones(16)], SchemaError, "need 3 a layer"),
    runtime("list_with_none", [torch.ones(16), None, torch.ones(16)], FormatError, "item 1 of its list: is a NoneType"),
    safetensors("half.safetensors", 36, {k: v.half() for k, v in heads().items()}, SchemaError, "orientation='KV'"),
    safetensors("wide.state", 36, heads(), SchemaError, "which way round"),
    safetensors("mixed.st", 36, heads(_1=torch.ones(2, 8, 8).half()), SchemaError, "which way round"),
]  # fmt: skip
DIGITS = [
    "\u0660",
    "\uff10",
    "00",
    "+0",
    "0_0",
    " 0",
    "0 ",
    "-0",
    "0x0",
    "1e0",
    "\u00b2",
    "",
    "10000",
    "99999999999999999999",
]
ROW_38 = [
    pth(f"digits_{index}", 38, {f"blocks.{text}.att.time_state": ONE.clone()}, SchemaError, "odd keys")
    for index, text in enumerate(DIGITS)
]
ROW_38 += [
    pth(
        "digits_beside", 38, heads() | {"blocks.\u0662.att.time_state": ONE.clone()}, SchemaError, "not part of a state"
    ),
    pth("line_end", 38, heads() | {"blocks.2.att.time_state\n": ONE.clone()}, SchemaError, "\\x0a"),
    pth("capitals", 38, {"Blocks.0.att.time_state": ONE.clone()}, SchemaError, "odd keys"),
    pth("prefix", 38, {"module.blocks.0.att.time_state": ONE.clone()}, SchemaError, "odd keys 'module.blocks.0"),
]
STRANGE = {
    "up": "../../etc/passwd", "nul": "a\0b", "line": "a\nb", "escape": "\x1b[2J", "link": "\x1b]8;;http://x\x07y",
    "right_to_left": "\u202eabc", "html": "<img src=x onerror=alert(1)>", "long": "x" * 10_000, "surrogate": "\ud800",
    "isolate": "\u2066a\u2069", "bell": "\x07", "nel": "\x85", "line_separator": "\u2028", "tag": "\U000e0041",
    "blank": "", "dunder": "__class__", "format": "{0.__class__}", "percent": "%s%n", "formula": "=cmd()",
    "bom": "\ufeff",
}  # fmt: skip
ROW_39 = [
    Case(39, f"key_{name}.pth", b.archive(b.pickled((key, b.tensor()))), SchemaError, "found '", by="peek state model")
    for name, key in STRANGE.items()
]
ROW_39 += [
    Case(39, f"key_{name}.safetensors", b.safe({key: b.one()["w"]}), SchemaError, "found '", by="peek state model")
    for name, key in STRANGE.items()
    if name not in ("surrogate",)
]
ROW_39 += [
    Case(39, "keys_long" + "g" * 200 + ".pth",
         b.archive(b.pickled(("k" * 90, b.tensor()))), SchemaError, "found", "peek state"),
    Case(39, "key_number.pth", b.archive(b"\x80\x02}" + b.whole(1) + b.tensor() + b"s."), SchemaError, "int"),
    Case(39, "key_bytes.pth", saved({b"w": ONE}), UnsafeFileError, "'_codecs.encode'"),
    Case(39, "key_tuple.pth", saved({("w", 1): ONE}), SchemaError, "tuple"),
    Case(39, "key_none.pth", saved({None: ONE}), SchemaError, "NoneType"),
    Case(39, "key_true.pth", saved({True: ONE}), SchemaError, "bool"),
]  # fmt: skip
ROW_39 += [
    Case(39, "key_half_pair.safetensors", b.safe({"\ud800": b.one()["w"]}), FormatError, "half of a surrogate pair"),
    Case(39, "text_half_pair.safetensors", b.safe(b.one() | {"__metadata__": {"a": "\udfff"}}), FormatError, "half of"),
]
MANY_LONG = {"k" * 90 + str(i): torch.ones(1) for i in range(60)}
V7 = random_weights(DIMS, {"w": 4, "a": 4, "v": 3, "g": 5})
V6 = random_weights(Dims("x060", L=2, H=2, C=16, K=8, V=8, ffn=24, vocab=33), {"maa": 3, "decay": 4})
V5 = random_weights(Dims("x052", L=2, H=2, C=16, K=8, V=8, ffn=24, vocab=33), {})
ROW_39 += [
    pth("n" * 200, 39, MANY_LONG, SchemaError, "(60 in all)"),
    pth("m" * 200, 39, V7 | MANY_LONG, SchemaError, "60 tensors are not part of RWKV-7", by="model"),
    pth("o" * 200, 39, heads() | MANY_LONG, SchemaError, "60 keys are not part of a state"),
]
ROW_44 = [
    pth(
        f"{name}_as_state",
        44,
        weights,
        MismatchError,
        f"is a model ({words} weights), not a state; open it with load_model",
    )
    for name, weights, words in (("v7", V7, "RWKV-7"), ("v6", V6, "RWKV-6"), ("v5", V5, "RWKV-5.2"))
]
ROW_44 += [
    pth("state_as_model", 44, heads(), MismatchError, "is a tuned state, not a model", by="model"),
    Case(44, "own_as_model.safetensors", functools.partial(ours, name="own_as_model.safetensors"), MismatchError,
         "is a tuned state", by="model"),
    Case(44, "list_as_model.pth", saved(FLAT), MismatchError, "list of tensors without names", by="model"),
    pth("rwkv-x060-of_v6", 44, heads(), MismatchError, "made for RWKV-6", by="fit"),
    pth("rwkv5_state", 44, {"blocks.0.att.wkvstate": ONE}, SchemaError, "RWKV-5", by="peek state"),
    pth("half_a_model", 44, {"blocks.0.ln1.weight": torch.ones(16)}, MismatchError, "is a model"),
]  # fmt: skip
ROW_45 = [
    pth(f"index_{name}", 45, {f"blocks.{index}.att.time_state": ONE.clone()}, SchemaError, words)
    for name, index, words in [
        ("9999", 9999, "below layer 9999"),
        ("10000", 10_000, "odd keys"),
        ("2_62", 2**62, "odd keys"),
        ("minus", -1, "odd keys"),
        ("4000_digits", "9" * 4000, "odd keys"),
    ]
]
ROW_45 += [
    pth("index_in_a_model", 45, V7 | {"blocks.9999.ln1.weight": torch.ones(16)}, SchemaError, "layer 2", by="model")
]


def own(name, error, words, by="peek state fit", row=24, **metadata):
    return Case(
        row, f"{name}.safetensors", functools.partial(ours, name=f"{name}.safetensors", **metadata), error, words, by
    )


CARDS = [
    own("card_half_pair", SchemaError, "card: a text with half of a surrogate pair", card='{"name":"\\ud800"}'),
    own("card_text", SchemaError, "card: not JSON", card="nonsense"),
    own("card_empty", SchemaError, "card: not JSON", card=""),
    own("card_list", SchemaError, "card: need an object, got list", card="[]"),
    own("card_twice", SchemaError, "'base' is there twice", card='{"base":"","base":""}'),
    own("card_nan", SchemaError, "card: NaN", card='{"name":NaN}'),
    own("card_deep", SchemaError, "card: nested too deep", card="[" * 100_000),
    own("card_long_number", SchemaError, "number too long", card='{"name":' + "9" * 9999 + "}"),
    own("card_number", SchemaError, "card.name: need a string, got '5'", card='{"name":5}'),
    own("card_name_object", SchemaError, "card.name: need a string", card='{"name":{"a":"' + "x" * 9999 + '"}}'),
    own("card_notes_text", SchemaError, "card.notes: need a list of strings", card='{"notes":"x"}'),
    own("card_parents", SchemaError, "card.parents: need a list of strings", card='{"parents":["a",1]}'),
    own("card_base", SchemaError, "card.base: need 64 hex digits", card='{"base":"0x_zz"}'),
    own("card_base_long", SchemaError, "card.base: need 64 hex digits", card=json.dumps({"base": "f" * 100_000})),
    own("card_other_base", MismatchError, "names another base model", card=json.dumps({"base": "0" * 64}), by="fit"),
    own("card_other_arch", MismatchError, "made for '\\x1b[2J'", card=json.dumps({"arch": "\x1b[2J"}), by="fit"),
    own("version_2", FormatError, "version: got '2'", version="2"),
    own("version_none", FormatError, "version: got ''", version=None),
    own("version_escape", FormatError, "version: got '\\x1b", version="\x1b[2J" * 99),
    own("format_other", SchemaError, "holds no state", format="pt"),
]
SMALL = {"wkv": torch.ones(1, 2, 8, 8), "att_shift": torch.ones(1, 16), "ffn_shift": torch.ones(1, 16)}


def _shaped(name, error, words, **tensors):
    made = {key: value for key, value in (SMALL | tensors).items() if value is not None}
    return safetensors(name, 35, made, error, words, metadata={"format": "rwkvlab-state", "version": "1"})


CARDS += [
    _shaped("own_three_axes.safetensors", MismatchError, "wkv: expected [L,H,V,K]", wkv=torch.ones(2, 8, 8)),
    _shaped("own_empty.safetensors", MismatchError, "wkv: expected [L,H,V,K]", wkv=torch.ones(0, 2, 8, 8)),
    _shaped("own_wide_shift.safetensors", MismatchError, "att_shift: expected [L=1, C=16], got [1, 33]",
            att_shift=torch.ones(1, 33)),
    _shaped("own_scalar_shift.safetensors", MismatchError, "ffn_shift: expected [L=1, C=16], got []",
            ffn_shift=torch.ones(())),
    _shaped("own_flat_shift.safetensors", MismatchError, "ffn_shift: expected [L=1, C=16], got [16]",
            ffn_shift=torch.ones(16)),
    _shaped("own_no_shift.safetensors", SchemaError, "need wkv, att_shift and ffn_shift", att_shift=None),
    _shaped("own_more.safetensors", SchemaError, "need wkv, att_shift and ffn_shift", more=torch.ones(1)),
]  # fmt: skip


def json_case(name, text, error, words, by="peek state", row=36):
    return Case(row, f"{name}.json", text if isinstance(text, bytes) else text.encode(), error, words, by=by)


def answer(data="1,2,3", shape="[1,3,1,1]", more=""):
    return f'{{"data":[{data}],"shape":{shape}{more}}}'


JSONS = [
    json_case("json_few", answer("1,2"), MismatchError, "needs 3 numbers, data has 2"),
    json_case("json_huge_shape", answer(shape="[1000000,1002,1000,1]"), MismatchError, "1,002,000,000,000"),
    json_case("json_shape_overflow", answer(shape="[2147483648,3,1,1]"), SchemaError, "shape: need"),
    json_case("json_shape_bool", answer(shape="[1,3,1,true]"), SchemaError, "shape: need"),
    json_case("json_shape_minus", answer(shape="[-1,3,-1,1]"), SchemaError, "shape: need"),
    json_case("json_shape_twice", answer(more=',"shape":[1,3,1,1]'), SchemaError, "'shape': is there twice"),
    json_case("json_data_twice", answer(more=',"data":[1,2,3]'), (SchemaError, FormatError), "json_data_twice"),
    json_case("json_cut", answer()[:-4], FormatError, "is not JSON"),
    json_case("json_not_utf8", answer().encode()[:-1] + b',"x":"\xff"}', FormatError, "UTF-8"),
    json_case("json_deep", answer(more=',"x":' + "[" * 30_000 + "]" * 30_000), FormatError, "is not JSON"),
    json_case("json_much_beside", answer(more=',"x":"' + "y" * 70_000 + '"'), LimitError, "beside the list"),
    json_case("json_word", answer("1,two,3"), FormatError, "data: from number 0 on", "state"),
    json_case("json_texts", answer('1,"2",3'), SchemaError, "data[1]: need a number", "state"),
    json_case("json_null", answer("1,null,3"), NonFiniteError, "data[1]: is null", "state", 31),
    json_case("json_beyond", answer("1,2,1e999"), NonFiniteError, "the first at [2]", "state", 31),
    json_case("json_spaces", '{"data"' + " " * 3_000_000 + ":[", SchemaError, "without a list of numbers"),
    json_case("json_many_data", "{" + '"data":[' * 300_000, (SchemaError, FormatError), "json_many_data"),
    json_case("json_long_number", answer("1,2," + "9" * 3_000_000), (FormatError, NonFiniteError), "data", "state"),
]


def flat(path, **options):
    load_state(path, MODEL, format="rwkv.cpp", **options)


FLATS = [
    Case(36, "flat_short.bin", bytes(1276), FormatError, "need 1,280 bytes", by=flat),
    Case(36, "flat_long.bin", bytes(1284), FormatError, "got 1,284", by=flat),
    Case(36, "flat_odd.bin", bytes(1279), FormatError, "need 1,280 bytes", by=flat),
    Case(31, "flat_nan.bin", bytes(1276) + struct.pack("<f", NAN), NonFiniteError, "layer 1: 1 of 160 values", by=flat),
    Case(31, "flat_inf.bin", struct.pack("<f", INF) + bytes(1276), NonFiniteError, "layer 0: 1 of 160", by=flat),
    Case(44, "rwkv6-flat.bin", bytes(1280), MismatchError, "made for RWKV-6", by=flat),
]
CASES = [*ROW_31, *ROW_32, *ROW_34, *ROW_35, *ROW_36, *ROW_38, *ROW_39, *ROW_44, *ROW_45, *CARDS, *JSONS, *FLATS]
