"""The JSON of Ai00 comes over in its memory order, every number of it; anything odd in it is named."""

import json
import time
import tracemalloc

import pytest
import torch

from rwkvlab.errors import FormatError, LimitError, LoadError, MismatchError, NonFiniteError, SchemaError
from rwkvlab.states import ai00json
from rwkvlab.states.files import load_state, peek_state
from rwkvlab.states.state import State

L, H, N = 2, 3, 4
C = H * N


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(3)
    att, ffn = torch.randn(2, L, C, generator=generator)
    return State(torch.randn(L, H, N, N, generator=generator), att_shift=att, ffn_shift=ffn)


def item(state):
    """data and shape as web-rwkv has them: index c + C * (row + (N + 2) * layer), by the letter of the format."""
    data = [0.0] * (C * (N + 2) * L)
    for i in range(L):
        for c in range(C):
            data[c + C * ((N + 2) * i)] = float(state.att_shift[i, c])
            data[c + C * (N + 1 + (N + 2) * i)] = float(state.ffn_shift[i, c])
            for k in range(N):
                data[c + C * (1 + k + (N + 2) * i)] = float(state.wkv[i, c // N, c % N, k])
    return {"data": data, "shape": [C, N + 2, L, 1]}


def answer(state, model="assets/models/RWKV-x060-World-3B-v2.st"):
    data = [{"object": "states", "index": 0} | item(state)]
    return {"object": "list", "model": model, "data": data, "usage": {"prompt": 3, "total": 3}}


def same(a, b):
    return all(torch.equal(getattr(a, part), getattr(b, part)) for part in ("wkv", "att_shift", "ffn_shift"))


@pytest.mark.parametrize("suffix", [".json", ".state", ".pth", ""])
@pytest.mark.parametrize("indent", [None, 1])
def test_the_answer_and_the_object_in_it_are_read(tmp_path, state, suffix, indent):
    path = tmp_path / f"a{suffix}"
    for value in (answer(state), item(state), {"shape": item(state)["shape"], "data": item(state)["data"]}):
        path.write_text(json.dumps(value, indent=indent))
        back = load_state(path)
        assert same(back, state)
        assert "(JSON of /api/oai/states)" in back.card.source  # not as a file that Ai00 can mount
        assert peek_state(path) == (back.card, (L, H, N, N))
    path.write_bytes(b"\xef\xbb\xbf \n" + json.dumps(item(state)).encode())
    assert same(load_state(path), state)


def test_long_answers_are_read_in_pieces(tmp_path, state, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(answer(state)))
    for piece in (30, 31, 100, 1000):
        monkeypatch.setattr(ai00json, "PIECE", piece)
        assert same(load_state(path), state)


def test_the_architecture_is_that_of_the_file_name_or_the_model_in_it(tmp_path, state):
    path, named = tmp_path / "a.json", tmp_path / "rwkv7-x.json"
    for file in (path, named):
        file.write_text(json.dumps(answer(state)))
    card = load_state(path).card
    assert card.arch == "x060"
    assert "taken from the model that the file names" in card.notes[0]
    assert load_state(named).card.arch == "x070"
    for model in ("x.st", 5, None):
        path.write_text(json.dumps(answer(state, model)))
        assert load_state(path).card.arch == ""


def test_orientation_turns_the_heads_alone(tmp_path, state):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(item(state)))
    turned = load_state(path, orientation="VK")
    assert torch.equal(turned.wkv, state.wkv.mT)
    assert torch.equal(turned.att_shift, state.att_shift)
    assert any("orientation=VK" in note for note in turned.card.notes)
    assert same(load_state(path, orientation="KV"), state)


def make(data="1,2,3", shape="[1,3,1,1]", more=""):
    return f'{{"data":[{data}],"shape":{shape}{more}}}'


HUGE = "9" * 400
# text, error, words that the message must have
HOSTILE = {
    "too_few": (make("1,2"), MismatchError, "shape: [1, 3, 1, 1] needs 3 numbers, data has 2"),
    "too_many": (make("1,2,3,4"), MismatchError, "data has 4"),
    "comma_at_the_end": (make("1,2,"), FormatError, "data: from number 0 on"),
    "comma_at_the_start": (make(",1,2"), FormatError, "data: from number 0 on"),
    "huge_shape": (make(shape="[1000000,1002,1000,1]"), MismatchError, "needs 1,002,000,000,000 numbers"),
    "overflowing_shape": (make(shape="[2147483648,3,1,1]"), SchemaError, "shape: need [C, N+2, L, 1]"),
    "shape_of_3": (make(shape="[1,3,1]"), SchemaError, "shape: need"),
    "shape_of_5": (make(shape="[1,3,1,1,1]"), SchemaError, "shape: need"),
    "batch_of_two": (make("1,2,3,4,5,6", "[1,3,1,2]"), SchemaError, "shape: need"),
    "no_shifts": (make("1,2", "[1,2,1,1]"), SchemaError, "shape: need"),
    "heads_do_not_divide": (make("1", "[5,4,1,1]"), SchemaError, "multiple of the head size N"),
    "zero_layers": (make(shape="[1,3,0,1]"), SchemaError, "shape: need"),
    "negative": (make(shape="[-1,3,-1,1]"), SchemaError, "shape: need"),
    "float_shape": (make(shape="[1.0,3,1,1]"), SchemaError, "shape: need"),
    "bool_shape": (make(shape="[1,3,1,true]"), SchemaError, "shape: need"),
    "text_shape": (make(shape='"1311"'), SchemaError, "shape: need"),
    "nan_shape": (make(shape="[1,3,NaN,1]"), SchemaError, "shape: need"),
    "digits_shape": (make(shape=f"[1,3,{'9' * 5000},1]"), FormatError, "is not JSON"),
    "no_shape": ('{"data":[1,2,3]}', SchemaError, "shape: need [C, N+2, L, 1]"),
    "nan": (make("1,NaN,3"), NonFiniteError, "data: 1 of 3 values are NaN or infinite, the first at [1]"),
    "infinity": (make("1,2,-Infinity"), NonFiniteError, "the first at [2]"),
    "null": (make("1,null,3"), NonFiniteError, "data[1]: is null, as JSON writes NaN"),
    "beyond_fp64": (make("1,2,1e999"), NonFiniteError, "the first at [2]"),
    "beyond_fp32": (make("1,1e39,3"), NonFiniteError, "the first at [1]"),
    "beyond_all": (make(f"1,2,{HUGE}"), NonFiniteError, "beyond fp32"),
    "five_thousand_digits": (make(f"1,2,{'9' * 5000}"), FormatError, "data: from number 0 on"),
    "strings": (make('1,"2",3'), SchemaError, "data[1]: need a number, got a str"),
    "booleans": (make("1,2,true"), SchemaError, "data[2]: need a number, got a bool"),
    "objects": (make('1,{"a":2},3'), SchemaError, "data[1]: need a number, got a dict"),
    "nested": (make("[1,2,3]"), SchemaError, "without a list of numbers called data"),
    "nested_later": (make("1,[2],3"), FormatError, "is not JSON"),
    "nested_deep": (make("[" * 100_000 + "]" * 100_000), SchemaError, "without a list of numbers"),
    "nested_deep_later": (make("1," + "[" * 100_000 + "]" * 100_000), LimitError, "beside the list of numbers"),
    "deep_beside": (make(more=',"x":' + "[" * 30_000 + "]" * 30_000), FormatError, "is not JSON"),
    "long_beside": (make(more=',"x":"' + "y" * 70_000 + '"'), LimitError, "beside the list of numbers"),
    "empty": (make(""), SchemaError, "without a list of numbers"),
    "blank": (make(" "), SchemaError, "without a list of numbers"),
    "no_data": ('{"shape":[1,3,1,1]}', SchemaError, "without a list of numbers called data"),
    "not_closed": ('{"data":[1,2,3', SchemaError, "without a list of numbers"),
    "cut": ('{"data":[1,2,3],"shape":[1,3', FormatError, "is not JSON"),
    "garbage_after": (make() + "x", FormatError, "is not JSON"),
    "twice": (make(more=',"shape":[1,3,1,1]'), SchemaError, "'shape': is there twice"),
    "data_twice": ('{"data":[1,2,3],' + make()[1:], SchemaError, "'data': is there twice"),
    "two_states": (f'{{"data":[{make()},{make()}]}}', SchemaError, "data: need one list"),
    "elsewhere": (f'{{"x":{make()},"data":5,"shape":[1,3,1,1]}}', SchemaError, "data: need one list"),
    "a_list": (f"[{make()}]", SchemaError, "need an object with data and shape, got a list"),
    "not_utf8": (make(more=',"x":"\udcff"'), FormatError, "is not JSON in UTF-8"),
    "escapes": (make(shape='"\\u001b[2J"'), SchemaError, "\\x1b"),
    "an_index": ('{"metadata":{},"weight_map":{"a":"b"}}', SchemaError, "no state of Ai00"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_odd_json_is_refused_by_kind_field_and_remedy(tmp_path, name):
    text, error, words = HOSTILE[name]
    path = tmp_path / f"{name}.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    start = time.perf_counter()
    with pytest.raises(error) as caught:
        load_state(path)
    message = str(caught.value)
    assert time.perf_counter() - start < 2
    assert f"'{name}.json'" in message
    assert words in message
    assert any(remedy in message for remedy in ("save the answer", "make the state again", "retrain"))
    assert len(message) < 400 and message.isprintable()


def test_every_cut_of_an_answer_is_refused(tmp_path, state):
    path, raw = tmp_path / "cut.json", json.dumps(answer(state)).encode()
    for end in range(0, len(raw), 7):
        path.write_bytes(raw[:end])
        with pytest.raises(LoadError, match="cut"):
            load_state(path)


def test_a_comma_too_many_where_a_piece_ends_is_seen(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text(make("1,2, "))
    monkeypatch.setattr(ai00json, "PIECE", 4)
    with pytest.raises(FormatError, match=r"'a\.json': data: a comma too many after number 1; save"):
        load_state(path)
    path.write_text(make("1,23456,7"))
    with pytest.raises(FormatError, match=r"'a\.json': data\[1\]: a number of more than 4 digits; save"):
        load_state(path)


def test_a_text_that_is_too_long_is_not_read(tmp_path, state, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(item(state)))
    monkeypatch.setattr(ai00json, "MAX_JSON", path.stat().st_size - 1)
    with pytest.raises(LimitError, match=r"'a\.json': .* bytes of JSON, at most"):
        load_state(path)


def test_lists_that_swell_in_memory_are_refused_in_little(tmp_path):
    """Read as one object, these 19 MB would take more than 400."""
    path, third = tmp_path / "a.json", 2 << 20
    path.write_text(make("1," + "{}," * (3 * third - 2) + "{}", f"[{third},3,1,1]"))
    tracemalloc.start()
    try:
        with pytest.raises(SchemaError, match=r"data\[1\]: need a number, got a dict"):
            load_state(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * path.stat().st_size
    finally:
        tracemalloc.stop()
