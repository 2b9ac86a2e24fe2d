"""inspect_file names every kind of file, says how sure it is, and never raises for a file."""

import gzip
import hashlib
import json
import os
import shutil
import zipfile

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import rwkvlab as lab
from rwkvlab.errors import ArgError, PathError
from rwkvlab.model.inspect import expand
from rwkvlab.model.inspect_base import ModelHeader
from rwkvlab.model.random_weights import random_weights
from rwkvlab.shapes import Dims

KEY = "blocks.{}.att.time_state"


def layers(dtype=torch.bfloat16, count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {KEY.format(i): torch.randn(2, 16, 16, generator=generator).to(dtype) for i in range(count)}


def run_time_list():
    return [tensor.clone() for tensor in (torch.ones(32), torch.ones(2, 16, 16), torch.zeros(32)) * 2]


def state_json():
    return json.dumps({"model": "rwkv7-g1-0.1b", "data": [{"data": [0.5] * 32 * 18 * 2, "shape": [32, 18, 2, 1]}]})


def as_safetensors(path, tensors):
    save_file(tensors, path, {"format": "pt"})


# file name: (how it is made, kind, architecture, what told it, orientation, a word of how sure that is)
STATES = {
    "rwkv-x060-chn_文言文QA-3B-20240505-ctx1024.pth": (
        lambda path: torch.save(layers(), path),
        *("tuned state", "x060", "its name", "VK", "usual"),
    ),
    "emoji.pth": (lambda path: torch.save(layers(torch.float32), path), "tuned state", "", "", "VK", "usual"),
    "a.state": (lambda path: as_safetensors(path, layers(torch.float16)), "Ai00 state", "", "", "KV", "by layout"),
    "b.safetensors": (lambda path: as_safetensors(path, layers()), "tuned state", "", "", "VK", "assumed"),
    "c.safetensors": (
        lambda path: as_safetensors(path, layers(torch.float16)),
        "tuned state",
        "",
        "",
        "",
        "cannot tell",
    ),
    "rwkv7-list.pth": (
        lambda path: torch.save(run_time_list(), path),
        *("run-time list", "x070", "its name", "VK", "by architecture"),
    ),
    "list.pth": (
        lambda path: torch.save(run_time_list(), path),
        *("run-time list", "", "", "", "does not say its architecture"),
    ),
    "s.json": (
        lambda path: path.write_text(state_json()),
        *("Ai00 state JSON", "x070", "the model that the JSON names", "KV", "memory order"),
    ),
    "whole.safetensors": (
        lambda path: lab.save_state(lab.State(torch.ones(2, 2, 16, 16), card=lab.StateCard(arch="x070")), path),
        *("rwkvlab state", "x070", "its card", "VK", "certain"),
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_is_named_with_its_architecture_and_orientation(tmp_path, name):
    make, kind, arch, told_by, orientation, sure = STATES[name]
    make(tmp_path / name)
    report = lab.inspect_file(tmp_path / name)
    assert (report.kind, report.arch, report.arch_from) == (kind, arch, told_by)
    assert report.orientation == orientation and sure in report.sure
    assert (report.L, report.H, report.V, report.K) == (2, 2, 16, 16)
    assert report.problem == "" and len(report.values.layer_norms) == 2
    assert report.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert report.bytes == (tmp_path / name).stat().st_size
    assert kind in repr(report) and report.sha256 in report._repr_html_()


def test_the_name_is_read_and_the_values_are_those_of_the_file(tmp_path):
    path = tmp_path / "rwkv-x060-chn_文言文QA-3B-20240505-ctx1024.pth"
    torch.save(layers(), path)
    report, state = lab.inspect_file(path), lab.load_state(path)
    assert (report.said.size, report.said.purpose, report.said.ctx) == ("3B", "chn_文言文QA", 1024)
    assert report.values.low == state.wkv.min() and report.values.high == state.wkv.max()
    assert report.values.layer_norms == pytest.approx(state.wkv.flatten(1).norm(dim=1).tolist())
    place = (state.wkv.abs() == state.wkv.abs().max()).nonzero()[0].tolist()
    assert report.values.where == f"layer {place[0]}, head {place[1]}"
    assert report.dtypes == ("bfloat16",) and report.shifts is False


def test_token_shifts_that_are_not_zero_are_told(tmp_path):
    torch.save(run_time_list(), tmp_path / "rwkv7-list.pth")
    assert lab.inspect_file(tmp_path / "rwkv7-list.pth").shifts is True


def test_a_base_model_is_measured_and_has_the_fingerprint_of_the_loaded_one(tiny, tiny_file):
    report = lab.inspect_file(tiny_file)
    assert (report.kind, report.arch, report.arch_from) == ("base model", "x070", "its keys")
    assert (report.width, report.ffn, report.vocab) == (32, 64, 257)
    assert report.fingerprint == tiny.card.fingerprint
    weights = torch.load(tiny_file, weights_only=True)
    used = {key: value for key, value in weights.items() if not key.startswith("blocks.0.att.v")}
    assert report.values.largest == max(float(value.abs().max()) for value in used.values())
    assert any("same weights as 'tiny'" in note for note in lab.inspect_file(tiny_file, tiny).notes)


def test_a_merged_checkpoint_is_a_model_and_a_state(tmp_path, tiny_file):
    weights = torch.load(tiny_file, weights_only=True)
    torch.save(weights | layers(), tmp_path / "merged.pth")
    report = lab.inspect_file(tmp_path / "merged.pth")
    assert (report.kind, report.arch, report.arch_from) == ("merged checkpoint", "x070", "its keys")
    assert report.ffn == 64 and len(report.values.layer_norms) == 2


def flawed(value, count=1):
    tensors = layers(torch.float32)
    tensors[KEY.format(1)][1, 2, :count] = value
    return tensors


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_counted_and_a_problem(tmp_path, value):
    torch.save(flawed(value, 3), tmp_path / "bad.pth")
    report = lab.inspect_file(tmp_path / "bad.pth")
    assert report.kind == "tuned state" and report.values.nonfinite == 3
    assert report.values.first_nonfinite == "layer 1, at [1, 2, 0]"
    assert "3 NaN or infinite values" in report.problem
    assert all(norm == norm and norm < 100 for norm in report.values.layer_norms)


def test_a_model_with_a_nan_is_reported_and_not_refused(tmp_path, tiny_file):
    weights = torch.load(tiny_file, weights_only=True)
    weights["head.weight"][3, 4] = float("nan")
    torch.save(weights, tmp_path / "m.pth")
    report = lab.inspect_file(tmp_path / "m.pth")
    assert report.kind == "base model" and report.values.first_nonfinite == "head.weight, at [3, 4]"


def test_a_state_of_zeros_is_called_that(tmp_path):
    torch.save({KEY.format(i): torch.zeros(2, 16, 16) for i in range(2)}, tmp_path / "z.pth")
    assert "all values are zero" in repr(lab.inspect_file(tmp_path / "z.pth"))


@pytest.mark.parametrize(("value", "word"), [(3e6, "far above"), (1e-9, "far below")])
def test_values_far_from_those_of_normal_running_are_a_warning(tmp_path, value, word):
    torch.save({KEY.format(0): torch.full((2, 16, 16), value)}, tmp_path / "s.pth")
    report = lab.inspect_file(tmp_path / "s.pth")
    assert word in report.warnings[0] and report.problem == ""


def test_values_beyond_fp32_are_counted_as_every_loader_counts_them(tmp_path, tiny):
    torch.save(
        {KEY.format(i): torch.full((2, 16, 16), 1e308, dtype=torch.float64) for i in range(2)}, tmp_path / "f.pth"
    )
    report = lab.inspect_file(tmp_path / "f.pth", tiny)
    assert report.values.nonfinite == 2 * 2 * 16 * 16 and "NaN or infinite" in report.problem
    assert report.fits == {"tiny": "it cannot be loaded"}


def test_a_merged_checkpoint_with_a_nan_in_its_weights_is_a_problem(tmp_path, tiny_file):
    weights = torch.load(tiny_file, weights_only=True)
    weights["emb.weight"][0, 0] = float("nan")
    torch.save(weights | layers(), tmp_path / "merged.pth")
    assert "emb.weight, at [0, 0]" in lab.inspect_file(tmp_path / "merged.pth").problem


def lora(path):
    torch.save({"blocks.0.att.key.lora_A": torch.ones(2, 2), "blocks.0.att.key.lora_B": torch.ones(2, 2)}, path)


def old_model(path):
    keys = ("emb.weight", "blocks.0.att.time_decay", "blocks.0.ln1.weight")
    torch.save({key: torch.ones(4) for key in keys}, path)


def archive(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/model.pth", b"x" * 50)


# file name: (how it is made, words of its kind, words of what to do)
OTHERS = {
    "m.gguf": (lambda p: p.write_bytes(b"GGUF\3\0\0\0" + bytes(50)), "GGUF", ".pth or .safetensors"),
    "m.prefab": (lambda p: p.write_bytes(b"\xa2\x64info" + bytes(50)), "CBOR file such as web-rwkv's .prefab", ".st"),
    "lora.pth": (lora, "LoRA adapter", "merge it"),
    "pointer.pth": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid 1"), "git-lfs", "lfs pull"),
    "page.pth": (lambda p: p.write_text("<!DOCTYPE html><html>" + "x" * 50), "HTML page", "raw file"),
    "m.pth.gz": (lambda p: p.write_bytes(gzip.compress(b"x" * 100)), "gzip", "gunzip"),
    "m.7z": (lambda p: p.write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(50)), "7z archive", "unpack"),
    "m.zip": (archive, "zip archive", "unpack"),
    "old.pth": (old_model, "RWKV-4", "RWKV-7"),
    "legacy.pth": (
        lambda p: torch.save(layers(), p, _use_new_zipfile_serialization=False),
        *("format of torch before 1.6", "re-save"),
    ),
    "pickle.pth": (lambda p: p.write_bytes(b"\x80\x04cos\nsystem\n."), "bare pickle", "safetensors"),
    "empty.pth": (lambda p: p.write_bytes(b""), "empty", "download"),
    "config.json": (lambda p: p.write_text('{"model_type": "rwkv7"}'), "JSON text", "api/oai/states"),
    "half.pth": (lambda p: p.write_bytes(b"PK\3\4" + bytes(90)), "unreadable", "download"),
    "none.pth": (lambda p: None, "missing", "no such file"),
    "folder.pth": (lambda p: p.mkdir(), "folder", "config.json"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_read_is_named_with_what_to_do(tmp_path, name):
    make, kind, remedy = OTHERS[name]
    make(tmp_path / name)
    report = lab.inspect_file(tmp_path / name)
    assert kind in report.kind and remedy in report.problem, (report.kind, report.problem)
    assert report.file == name and name not in report.kind
    assert len(repr(report).splitlines()) < 6 and repr(report).replace("\n", "").isprintable()


def test_a_state_is_checked_against_models_and_against_their_headers(tmp_path, tiny, tiny_file, random_state):
    lab.save_state(random_state("a"), tmp_path / "own.safetensors")
    lab.save_state(lab.State(torch.ones(2, 3, 16, 16)), tmp_path / "wide.pth")
    other = Dims("x070", L=2, H=2, C=32, K=16, V=16, ffn=64, vocab=257)
    torch.save(random_weights(other, {"w": 4, "a": 4, "v": 4, "g": 4}, seed=5), tmp_path / "other.pth")
    assert lab.inspect_file(tmp_path / "own.safetensors", tiny).fits == {"tiny": ""}
    fits = lab.inspect_file(tmp_path / "own.safetensors", [tiny_file, tmp_path / "other.pth"]).fits
    assert fits["tiny.pth"] == "" and "another base model" in fits["other.pth"]
    assert "H=3 (model 2)" in lab.inspect_file(tmp_path / "wide.pth", tiny_file).fits["tiny.pth"]


def test_of_a_model_given_by_its_path_only_the_header_is_read(tmp_path, tiny_file, monkeypatch):
    torch.save(layers(), tmp_path / "a.pth")
    header = ModelHeader(tiny_file)
    monkeypatch.setattr(ModelHeader, "known", lambda self: pytest.fail("the weights were read"))
    report = lab.inspect_file(tmp_path / "a.pth", header)
    assert report.fits == {"tiny.pth": ""}
    assert report.fits_by == "shape" and "fits        tiny.pth: in shape alone" in repr(report)


def test_an_architecture_that_does_not_go_with_a_model_is_told(tmp_path, tiny):
    torch.save(layers(), tmp_path / "rwkv-x060-qa-3B.pth")
    torch.save(layers(), tmp_path / "qa-3B.pth")
    assert "made for RWKV-6" in lab.inspect_file(tmp_path / "rwkv-x060-qa-3B.pth", tiny).fits["tiny"]
    hinted = lab.inspect_file(tmp_path / "qa-3B.pth", tiny)
    assert hinted.fits == {"tiny": ""} and "a size of RWKV-5 and RWKV-6" in hinted.warnings[0]


def test_damage_is_found(tmp_path):
    lab.save_state(lab.State(torch.ones(2, 2, 4, 4)), tmp_path / "a.safetensors")
    raw = bytearray((tmp_path / "a.safetensors").read_bytes())
    raw[-5] ^= 1
    (tmp_path / "a.safetensors").write_bytes(raw)
    assert "sha256 differs" in lab.inspect_file(tmp_path / "a.safetensors").problem


def test_headers_alone_read_no_tensor(tmp_path, tiny_file, monkeypatch):
    torch.save(layers(), tmp_path / "a.pth")
    monkeypatch.setattr("rwkvlab.tensorfile.TensorFile.read", lambda *_: pytest.fail("a tensor was read"))
    for path in (tmp_path / "a.pth", tiny_file):
        report = lab.inspect_file(path, values=False)
        assert report.L == 2 and report.values is None and report.sha256 == ""


def test_a_report_is_json_also_where_values_are_not_finite(tmp_path):
    torch.save({KEY.format(0): torch.full((1, 2, 2), float("nan"))}, tmp_path / "n.pth")
    found = json.loads(json.dumps(lab.inspect_file(tmp_path / "n.pth").to_dict(), allow_nan=False))
    assert found["values"]["nonfinite"] == 4 and found["values"]["low"] is None
    assert found["said"]["purpose"] == "n"


def test_many_files_make_one_table(tmp_path, tiny):
    for name in STATES:
        STATES[name][0](tmp_path / name)
    for name in ("m.gguf", "page.pth"):
        OTHERS[name][0](tmp_path / name)
    (tmp_path / "notes.txt").write_text("not asked for")
    table = lab.inspect_files([tmp_path], tiny)
    assert isinstance(table, pd.DataFrame) and len(table) == len(STATES) + 2
    assert set(table[table["problem"] != ""]["file"]) == {"m.gguf", "page.pth"}
    fits = table.set_index("file")["fits"]
    assert fits["emoji.pth"] == "tiny" and fits["rwkv-x060-chn_文言文QA-3B-20240505-ctx1024.pth"] == "not tiny"
    assert lab.inspect_files([]).empty


def test_wrong_models_are_an_error_and_no_report(tmp_path, tiny_file):
    with pytest.raises(ArgError, match=r"models\[0\]: need a model"):
        lab.inspect_file(tiny_file, 5)
    with pytest.raises(PathError, match="no such file"):
        lab.inspect_file(tiny_file, tmp_path / "none.pth")


def test_the_hint_of_a_name_outweighs_the_model_given(tmp_path, tiny):
    torch.save(run_time_list(), tmp_path / "my_rwkv_v6_list.pth")
    report = lab.inspect_file(tmp_path / "my_rwkv_v6_list.pth", tiny)
    assert report.fits_by == "shape" and "names RWKV-6" in report.warnings[0]
    assert report.sure.startswith("assumed")


def test_models_of_one_name_are_told_apart(tmp_path):
    dims = Dims("x060", L=2, H=2, C=32, K=16, V=16, ffn=64, vocab=99)
    for folder, arch in (("a", "x060"), ("b", "x070")):
        (tmp_path / folder).mkdir()
        ranks = {"maa": 4, "decay": 4} if arch == "x060" else {"w": 4, "a": 4, "v": 4, "g": 4}
        own = Dims(arch, **{name: getattr(dims, name) for name in ("L", "H", "C", "K", "V", "ffn", "vocab")})
        torch.save(random_weights(own, ranks), tmp_path / folder / "model.pth")
    torch.save(layers(), tmp_path / "rwkv-x060-s.pth")
    for order in (("a", "b"), ("b", "a")):
        fits = lab.inspect_file(tmp_path / "rwkv-x060-s.pth", [tmp_path / name / "model.pth" for name in order]).fits
        assert sorted(why == "" for why in fits.values()) == [False, True]
        assert list(fits) == ["model.pth", f"{order[1]}/model.pth"]
    named = lab.inspect_file(tmp_path / "rwkv-x060-s.pth", {"six": tmp_path / "a/model.pth"})
    assert named.fits == {"six": ""} and named.fits_by == "architecture"


def test_what_was_assumed_before_a_state_was_saved_is_not_called_certain(tmp_path):
    torch.save(layers(), tmp_path / "a.pth")
    lab.save_state(lab.load_state(tmp_path / "a.pth"), tmp_path / "assumed.safetensors")
    lab.save_state(lab.load_state(tmp_path / "a.pth", orientation="VK"), tmp_path / "given.safetensors")
    assert "it was only usual" in lab.inspect_file(tmp_path / "assumed.safetensors").sure
    assert lab.inspect_file(tmp_path / "given.safetensors").sure == "certain: its own format says so"


def test_files_of_a_folder_are_found_by_what_they_begin_with_too(tmp_path):
    torch.save(layers(), tmp_path / "renamed.txt")
    torch.save(layers(), tmp_path / ".hidden.pth")
    (tmp_path / "notes.txt").write_text("no file of tensors")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "states.zip").write_bytes(b"PK\3\4" + bytes(50))
    assert sorted(path.name for path in expand([tmp_path])) == ["renamed.txt", "states.zip"]


def test_files_of_one_name_are_told_by_their_folder(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        torch.save(layers(), tmp_path / folder / "a.pth")
    assert list(lab.inspect_files([tmp_path / "x", tmp_path / "y"])["file"]) == ["x/a.pth", "y/a.pth"]


def test_texts_of_the_table_cannot_act_on_a_terminal(tmp_path):
    path = tmp_path / "a\x1b[31m\u202eb.pth"
    torch.save(layers(), path)
    table = lab.inspect_files([path])
    assert table["file"][0] == "a\\x1b[31m\\u202eb.pth" and "\x1b" not in repr(table)
    odd = os.fsencode(tmp_path) + b"/\xff.pth"
    shutil.copy(path, odd)
    print(lab.inspect_files([os.fsdecode(odd)]))


def test_a_file_of_the_size_of_a_buffer_is_hinted_at(tmp_path, tiny):
    torch.zeros(2 * (2 * 32 + 2 * 16 * 16)).add(0.5).numpy().tofile(tmp_path / "state.bin")
    report = lab.inspect_file(tmp_path / "state.bin", tiny)
    assert report.problem.endswith("format='rwkv.cpp' reads that)")
    assert "rwkv.cpp" not in lab.inspect_file(tmp_path / "state.bin").problem


def test_what_is_no_path_is_reported_too():
    assert lab.inspect_file(None).kind == "missing" and "need a path" in lab.inspect_files([b"x"])["problem"][0]
