# make demo | make test | make setup | make check | make bench [BENCH_JSON=file.json] | make report
# make docs: the site, in site/, notebooks executed
# make campaign MINUTES=9 OUT=slot [SETTINGS="data=public data_root=data"]: without make setup, on a machine as it is
# make gpu-check | make gpu-bench [DEVICE=cuda:1] [OUT=folder]: the same; DEVICE=cpu TINY=1 on a CPU, with recordings emulated
# Another Python or PyTorch: make setup PYTHON=python3.12 TORCH="torch --index-url https://download.pytorch.org/whl/cu126"
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

.PHONY: setup demo test check bench fuzz torture gpu-check gpu-bench campaign report docs clean

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt Makefile
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) $(TORCH)
	# the PyTorch that is there stays: everything else has to go with it
	$(BIN)/python -c 'import importlib.metadata as m; print("torch==" + m.version("torch"))' > .venv/torch.txt
	$(PIP) --constraint constraints.txt --constraint .venv/torch.txt --editable '.[dev,launchers]'
	# by all cores, which pip does not, and without what nothing here imports; some files are no Python of this version
	$(BIN)/python -m compileall -qq -j 0 -x "/(tests?|sympy|networkx|_inductor)/" .venv/lib aseqdip || true
	touch $@

demo: setup
	@echo "First without a network, in seconds: total variation. Then aSeqDIP, in minutes. Ctrl-C stops; the same command goes on."
	$(BIN)/python run.py task=mri method=tv accel=4 tracker=none
	$(BIN)/python run.py task=mri method=aseqdip accel=4 preset=quick tracker=none

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPY_NUM_WORKERS=2 $(BIN)/mypy

test: check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

bench: setup
	$(BIN)/python scripts/benchmark.py $(if $(BENCH_JSON),--json $(BENCH_JSON))

# data files, words and records with a thousand random damages each, from fixed seeds: some 5 minutes on two cores
fuzz: setup
	ASEQDIP_FUZZ=1000 $(BIN)/python -m pytest --numprocesses 2 tests/test_fuzz_words.py tests/report/test_fuzz_records.py tests/data/test_damage.py

# 50 reconstructions killed at random moments, compared with ones that nobody killed: some 15 minutes
torture: setup
	$(BIN)/python scripts/torture.py --kills 50 --seed 0

# these run without make setup, and without make: they are scripts to be called by any Python that has what they need
ANY = $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
DEVICE ?= cuda
gpu-check gpu-bench:
	$(ANY) scripts/$(subst -,_,$@).py --device $(DEVICE) $(if $(TINY),--tiny) --out $(or $(OUT),outputs/gpu)

MINUTES ?= 9
campaign:
	$(ANY) scripts/campaign.py --minutes $(MINUTES) --out $(OUT) $(SETTINGS)

# studies have pages of their own
RESULTS = $(filter-out results/calibration/ results/claims/ results/precision/ results/quality/ results/warm/ results/fig%,$(wildcard results/*/))
report: setup
	$(BIN)/python -m aseqdip.report $(RESULTS) --html docs/results.html --markdown docs/results.md
	$(BIN)/python -m aseqdip.studies.claims page results/claims docs/claims.md
	$(BIN)/python -m aseqdip.studies.readings_report results/calibration docs/reproduction.md
	$(BIN)/python -m aseqdip.studies.quality page results/quality docs/quality.md

# to read it, searching included: .venv/bin/python -m http.server --directory site
docs: setup
	$(PIP) --constraint constraints.txt --constraint .venv/torch.txt --editable '.[docs]'
	# what the notebooks' kernels say is encrypted: else each warns that it is not
	mkdir -p .venv/etc/jupyter && echo '{"KernelManager": {"transport_encryption": "auto"}}' > .venv/etc/jupyter/jupyter_config.json
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	$(BIN)/python -m pytest --numprocesses 0 -m "not slow" tests/test_docs.py

clean:
	rm -rf .venv site build dist *.egg-info
