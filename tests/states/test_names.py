"""The names of the wild say what they say, and no name raises."""

from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkvlab.states.names import NameCard, parse_name

# each name, and below it what is to be read off it
NAMES = """
rwkv6-world-v3-7b-chn_文言文QA-20241114-ctx2048.pth
    arch=x060 kind=World data_version=v3 size=7B purpose=chn_文言文QA date=20241114 ctx=2048 ext=.pth
rwkv-x060-OnlyForChnNovel_小说扩写-14B-20240806-ctx4096.pth
    arch=x060 purpose=OnlyForChnNovel_小说扩写 size=14B date=20240806 ctx=4096 ext=.pth
rwkv-x060-chn_single_round_qa-3B-20240505-ctx1024.state
    arch=x060 purpose=chn_single_round_qa size=3B date=20240505 ctx=1024 ext=.state
rwkv-x060-chn_single_round_qa-7B-20240516-ctx2048.state
    arch=x060 purpose=chn_single_round_qa size=7B date=20240516 ctx=2048 ext=.state
rwkv-x060-eng_single_round_qa-1B6-20240516-ctx2048.pth
    arch=x060 purpose=eng_single_round_qa size=1.6B date=20240516 ctx=2048 ext=.pth
rwkv-x060-chn_文言文和古典名著_single_round_qa-7B-20240601-ctx2048.pth
    arch=x060 purpose=chn_文言文和古典名著_single_round_qa size=7B date=20240601 ctx=2048 ext=.pth
RWKV-6-World-3B-v2.1-chn_文言文QA
    arch=x060 kind=World size=3B data_version=v2.1 purpose=chn_文言文QA
RWKV-x060-World-7B-v2.1-20240507-ctx4096.pth
    arch=x060 kind=World size=7B data_version=v2.1 date=20240507 ctx=4096 ext=.pth
RWKV-x070-World-2.9B-v3-20250211-ctx4096.pth
    arch=x070 kind=World size=2.9B data_version=v3 date=20250211 ctx=4096 ext=.pth
rwkv-x070-2b9-world-v3-82%trained-20250203-ctx4k.pth
    arch=x070 size=2.9B kind=World data_version=v3 progress=82%trained date=20250203 ctx=4096 ext=.pth
RWKV-x070-Pile-164M-L33-D512
    arch=x070 kind=Pile size=164M geometry=L33-D512
rwkv7-g1a4-2.9b-20251118-ctx8192.pth
    arch=x070 series=g1a4 size=2.9B date=20251118 ctx=8192 ext=.pth
rwkv7a-g1d-0.1b-20260212-ctx8192.pth
    arch=x070a series=g1d size=0.1B date=20260212 ctx=8192 ext=.pth
rwkv7-g1i_preview3260-7.2b-20260716-ctx12288.pth
    arch=x070 series=g1i_preview3260 size=7.2B date=20260716 ctx=12288 ext=.pth
RWKV-4-Raven-14B-v11x-Eng99%-Other1%-20230501-ctx8192.pth
    arch=x040 kind=Raven size=14B data_version=v11x lang=Eng99%-Other1% date=20230501 ctx=8192 ext=.pth
RWKV-6-ABC-85M-v1-20240217-ctx1024-webrwkv.st
    arch=x060 kind=ABC size=85M data_version=v1 date=20240217 ctx=1024 purpose=webrwkv ext=.st
rwkv7-g1-2.9b-20250519-ctx4096-Q8_0.gguf
    arch=x070 series=g1 size=2.9B date=20250519 ctx=4096 quant=Q8_0 ext=.gguf
rwkv7-g1-2.9b-20250519-ctx4096_Q6_K.gguf
    arch=x070 series=g1 size=2.9B date=20250519 ctx=4096 quant=Q6_K ext=.gguf
rwkv7-g1-1.5b-int8.safetensors
    arch=x070 series=g1 size=1.5B quant=int8 ext=.safetensors
RWKV-5-World-0B4-v2-OnlyForTest_71%_trained-ctx4k.pth
    arch=x052 kind=World size=0.4B data_version=v2 progress=OnlyForTest_71%_trained ctx=4096 ext=.pth
RWKV-x070-World-450m-Chn-test1050.pth
    arch=x070 kind=World size=450M lang=Chn progress=test1050 ext=.pth
"""
LINES = NAMES.strip().splitlines()
REAL = dict(zip(LINES[::2], LINES[1::2], strict=True))
FIELDS = [field.name for field in fields(NameCard) if field.name not in ("text", "stem")]


@pytest.mark.parametrize("name", REAL)
def test_a_real_name_says_what_it_says(name):
    card = parse_name(name)
    assert {field: str(getattr(card, field)) for field in FIELDS if getattr(card, field)} == dict(
        pair.split("=") for pair in REAL[name].split()
    )
    assert card.text == name
    assert card.stem + card.ext == name


def test_a_path_and_a_percent_encoded_name_are_read_too():
    card = parse_name("models/states\\RWKV-6-World-3B-v2.1-chn_%E6%96%87%E8%A8%80%E6%96%87QA.PTH")
    assert (card.purpose, card.ext, card.size) == ("chn_文言文QA", ".pth", "3B")
    assert parse_name("a%2Fb.pth").text == "b.pth"


def test_the_order_of_the_parts_is_free():
    a, b = parse_name("ctx4096-3B-World-RWKV-6-v2.1.pth"), parse_name("RWKV-6-World-3B-v2.1-ctx4096.pth")
    assert all(getattr(a, field) == getattr(b, field) for field in FIELDS)


def test_what_ai00_requires_and_a_name_lacks_is_listed():
    assert parse_name("rwkv-x060-chn_qa-3B.state").missing == ("kind",)
    assert parse_name("emoji.pth").missing == ("arch", "kind", "size")
    assert parse_name("emoji.pth").purpose == "emoji"


@settings(max_examples=100, deadline=None)
@given(
    st.text()
    | st.lists(st.sampled_from(["rwkv", "-", "x060", "3B", "%", "_", "ctx", "9" * 30, "Q8_0", ".pth"])).map("".join)
)
def test_no_name_raises(name):
    card = parse_name(name)
    assert card.text.endswith(card.stem + card.ext) or card.ext


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "name", ["a" * 10**6, "-" * 10**6, "1_" * 10**5 + "x", "%" * 10**5, None, 5, b"x", "", "\0", "\ud800", "/"]
)
def test_no_odd_name_raises_or_hangs(name):
    parse_name(name)
