"""rwkvlab env tells what matters for a bug report, and nothing that is the user's alone."""

import argparse
import json
import os
import platform
import re
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rwkvlab.cli import env, main
from rwkvlab.cli.env import add_env, environment


@pytest.fixture
def run(capsys):
    """run("--json") -> what the command prints."""

    def call(*arguments):
        top = argparse.ArgumentParser()
        add_env(top.add_subparsers(), argparse.ArgumentParser(add_help=False))
        given = top.parse_args(["env", *arguments])
        assert given.run(given, []) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return call


def test_the_block_has_the_versions_and_one_line_for_each_thing(run):
    lines = dict(line.split("  ", 1) for line in run().splitlines())
    said = {name: text.strip() for name, text in lines.items()}
    for name in ("rwkvlab", "torch", "numpy", "jupyterlab", "ipywidgets", "anywidget"):
        assert said[name] == version(name)
    assert said["Python"].startswith(platform.python_version())
    assert platform.system() in said["OS"] and platform.machine() in said["OS"]
    assert f"{torch.get_num_threads()} threads of torch" in said["CPU"]
    assert said["bundled models"] == "micro, rwkv6, rwkv7"
    assert all(text for text in said.values())


def test_the_json_is_the_same(run):
    found = json.loads(run("--json"))
    assert found.keys() == environment().keys() and found["torch"] == version("torch")


def test_no_path_user_or_secret_is_told(run, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://user:secret@mirror.example")
    monkeypatch.setenv("https_proxy", "http://user:secret@proxy.example")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("PYTHONPATH", "/home/somebody/secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1\x1b[31m")
    out = run()
    assert "secret" not in out and "somebody" not in out and "\x1b" not in out
    assert "HF_ENDPOINT (set)" in out and "HTTPS_PROXY (set)" in out and "OMP_NUM_THREADS=1\\x1b[31m" in out
    for own in (str(Path.home()), sys.prefix, os.getcwd(), platform.node()):
        assert len(own) < 3 or own not in out
    assert not re.search(r"(^|[\s=])[~/]\w", out)


def test_what_is_missing_is_said_in_its_line(monkeypatch, tmp_path):
    for name, parts in {
        "one": ("one.pth", "vocab.txt", "states", "card.json"),
        "two": ("card.json",),
        "no": (),
    }.items():
        (tmp_path / name).mkdir()
        for part in parts:
            (tmp_path / name / part).touch()
    monkeypatch.setattr(env, "BUNDLED", tmp_path)
    monkeypatch.setattr(env, "PACKAGES", ("rwkvlab", "surely-not-installed"))
    monkeypatch.setattr(env, "free_memory", lambda device: None)
    monkeypatch.setattr(env, "CPUINFO", tmp_path / "none")
    found = environment()
    assert found["surely-not-installed"] == "not installed" and found["memory"] == "not known"
    assert found["bundled models"] == "one, two (incomplete)"
    monkeypatch.setattr(env, "BUNDLED", tmp_path / "none")
    assert environment()["bundled models"] == "none"


def test_a_gpu_is_named_with_its_driver(monkeypatch, tmp_path):
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\nGCC version:  gcc 12.2\n"
    )
    monkeypatch.setattr(env, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    card = SimpleNamespace(name="NVIDIA H100 80GB HBM3", total_memory=85e9, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda at: card)
    found = environment()
    assert found["CUDA"].endswith(", NVIDIA driver 570.86.15")
    assert found["GPU 0"] == found["GPU 1"] == "NVIDIA H100 80GB HBM3, 85 GB, compute capability 9.0"


@pytest.mark.parametrize(
    ("line", "driver"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  550.54.15  Release", "550.54.15"),
        ("nothing that we know", "not found"),
    ],
)
def test_the_driver_is_read_whatever_the_kind_of_module(monkeypatch, tmp_path, line, driver):
    (tmp_path / "version").write_text(line)
    monkeypatch.setattr(env, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert f"NVIDIA driver {driver})" in environment()["GPU"]


def test_why_torch_cannot_use_a_gpu_is_said(monkeypatch):
    def old():
        warnings.warn("The NVIDIA driver on your system is too old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", old)
    assert environment()["GPU"].endswith(": The NVIDIA driver on your system is too old")


def test_env_is_a_command(capsys):
    assert main(["env"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("rwkvlab ") and "bundled models" in out and err == ""
