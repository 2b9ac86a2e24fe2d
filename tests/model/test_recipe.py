"""A pickled model is a path: small, opened once in a process, checked on arrival."""

import copy
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rwkvlab.errors import ArgError, MismatchError, PathError
from rwkvlab.model import engine, recipe
from rwkvlab.model.engine import Model, load_model
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.recipe import _slot, recipe_of
from rwkvlab.model.weights import load_weights
from rwkvlab.shapes import Dims


@pytest.fixture
def opened(monkeypatch):
    """The paths that were opened, with nothing kept from before."""
    seen, real = [], engine.load_model
    monkeypatch.setattr(engine, "load_model", lambda path, **options: (seen.append(path), real(path, **options))[1])
    _slot.cache_clear()
    yield seen
    _slot.cache_clear()


def back(model):
    return pickle.loads(pickle.dumps(model))


def test_a_model_comes_back_with_the_same_weights_and_options(tiny_file, tmp_path, opened):
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("".join(f"{i + 1} {bytes([i])!r} 1\n" for i in range(256)))
    for options in (
        {"tokenizer": "bytes"},
        {"dtype": "bf16", "backend": "naive"},
        {"dtype": torch.float16},
        {"tokenizer": vocab},
        {"tokenizer": str(vocab)},
    ):
        model = load_model(tiny_file, **options)
        other = back(model)
        assert (other.card, other.dtype, other.device, other.dims) == (
            model.card,
            model.dtype,
            model.device,
            model.dims,
        )
        assert other._backend == model._backend and other.tokenizer.name == model.tokenizer.name
        assert torch.equal(other.forward([1, 2]).logits, model.forward([1, 2]).logits)
        assert len(pickle.dumps(model)) < 2000


def test_a_model_is_opened_once_however_often_it_arrives(tiny, tiny_file, opened):
    first = back(tiny)
    assert back(tiny) is first and copy.deepcopy(tiny) is first and len(opened) == 1
    other = back(load_model(tiny_file, dtype="bf16"))
    assert back(tiny) is first and other is not first and len(opened) == 2


def test_threads_that_want_it_at_once_wait_for_one_opening(tiny, opened):
    data = pickle.dumps(tiny)
    with ThreadPoolExecutor(8) as pool:
        assert len(set(map(id, pool.map(pickle.loads, [data] * 32)))) == 1
    assert len(opened) == 1


def test_a_tokenizer_of_ones_own_travels_along_and_is_told_from_others(tiny_file, opened):
    models = [load_model(tiny_file, tokenizer=Shifted(by)) for by in (1, 2)]
    assert [back(model).encode("a") for model in models] == [[98], [99]]
    assert back(models[0]) is back(models[0])


class Shifted:
    def __init__(self, by):
        self.by = by

    def encode(self, text):
        return [ord(char) + self.by for char in text]

    def decode(self, ids):
        return "".join(chr(index - self.by) for index in ids)


def test_a_relative_path_means_the_folder_it_was_loaded_in(tiny_file, tmp_path, monkeypatch, opened):
    shutil.copy(tiny_file, tmp_path / "m.pth")
    (tmp_path / "vocab.txt").write_text("".join(f"{i + 1} {bytes([i])!r} 1\n" for i in range(256)))
    monkeypatch.chdir(tmp_path)
    model = load_model("m.pth", tokenizer="vocab.txt")
    monkeypatch.chdir("/")
    assert back(model).card == model.card


def test_a_file_that_is_gone_or_another_is_told_and_tried_again(tiny_file, tmp_path, opened):
    path = tmp_path / "m.pth"
    shutil.copy(tiny_file, path)
    data = pickle.dumps(load_model(path))
    os.rename(path, tmp_path / "n.pth")
    with pytest.raises(PathError, match=r"no such file.*sent to other processes as its path.*m\.pth.*must be there"):
        pickle.loads(data)
    torch.save({key: -tensor for key, tensor in torch.load(tiny_file).items()}, path)
    with pytest.raises(MismatchError, match="holds another model"):
        pickle.loads(data)
    os.rename(tmp_path / "n.pth", path)
    assert isinstance(pickle.loads(data), Model)


@pytest.mark.parametrize("edit", ["scale", "one row", "one bit"])
def test_weights_of_the_same_signs_are_told_from_those_that_were_sent(tiny_file, tmp_path, opened, edit):
    path, weights = tmp_path / "m.pth", torch.load(tiny_file)
    shutil.copy(tiny_file, path)
    model = load_model(path)
    data = pickle.dumps(model)
    head = weights["head.weight"]
    if edit == "scale":
        head *= 3
    elif edit == "one row":
        head[100] *= 2
    else:
        head[0, 0] = torch.nextafter(head[0, 0], torch.tensor(9.0).to(head))
    torch.save(weights, path)
    other = load_model(path)
    assert edit == "one row" or other.card.fingerprint == model.card.fingerprint
    assert other.digests[0] != model.digests[0] and other.digests[1] == model.digests[1]
    with pytest.raises(MismatchError, match="holds another model"):
        pickle.loads(data)


def test_a_vocabulary_that_was_changed_under_its_name_is_told(tiny_file, tmp_path, opened):
    lines = [f"{i + 1} {bytes([i])!r} 1\n" for i in range(256)]
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("".join(lines))
    data = pickle.dumps(load_model(tiny_file, tokenizer=vocab))
    vocab.write_text("".join([*lines[:97], f"98 {b'b'!r} 1\n", f"99 {b'a'!r} 1\n", *lines[99:]]))
    with pytest.raises(MismatchError, match=r"vocab\.txt.*is another vocabulary"):
        pickle.loads(data)
    vocab.write_text("".join(reversed(lines)))  # the order of the lines means nothing
    assert pickle.loads(data).encode("a") == [98]


def test_digests_are_of_what_is_there_and_taken_once(tiny_file, tmp_path, monkeypatch):
    model, again = load_model(tiny_file), load_model(tiny_file, tokenizer=Shifted(1))
    assert model.digests[0] == again.digests[0] and again.digests[1] == ""
    assert load_model(tiny_file, dtype="bf16").digests[0] != model.digests[0]
    monkeypatch.setattr(recipe, "tensor_digest", None)
    assert pickle.loads(pickle.dumps(model.digests)) == model.digests
    dims = Dims("x060", L=1, H=2, C=32, K=16, V=16, ffn=64, vocab=300)
    torch.save(random_weights(dims, {"maa": 4, "decay": 4}), tmp_path / "six.pth")
    monkeypatch.undo()
    assert load_model(tmp_path / "six.pth").digests[1] == ""  # no tokenizer: it reads ids


def test_an_address_on_the_hub_is_asked_for_where_its_file_is_not(tiny_file, tmp_path, monkeypatch, opened):
    cached = tmp_path / "cached.pth"
    shutil.copy(tiny_file, cached)
    monkeypatch.setattr(engine, "fetch", lambda source: cached if source == "owner/repo/cached.pth" else source)
    data = pickle.dumps(load_model("owner/repo/cached.pth"))
    assert pickle.loads(data) and opened == [cached]
    _slot.cache_clear()
    elsewhere = tmp_path / "elsewhere.pth"
    os.rename(cached, elsewhere)
    monkeypatch.setattr(engine, "fetch", lambda source: elsewhere if source == "owner/repo/cached.pth" else source)
    opened.clear()
    assert pickle.loads(data).card.name == "elsewhere" and opened == ["owner/repo/cached.pth"]


def test_a_model_that_no_file_made_cannot_be_sent(tiny_file):
    model = Model(load_weights(tiny_file, torch.device("cpu")), "mine")
    with pytest.raises(ArgError, match=r"'mine': cannot be sent.*not made by load_model"):
        pickle.dumps(model)
    assert recipe_of(load_model(tiny_file)).fingerprint == model.card.fingerprint
