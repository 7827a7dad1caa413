# `make help` lists what there is. Every target sets up what it needs in .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
DEMO := demo

.DEFAULT_GOAL := help
.PHONY: help demo test chaos fuzz lint docs bench pictures clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */  make \1|/' | column -t -s '|'

demo: $(VENV)/.run  ## annotate examples/ with the bundled model on a local Ray, score it, show pictures
	$(BIN)/python -m examples.demo $(DEMO)

test: $(VENV)/.dev  ## the tests: minutes, offline, two cores are enough (needs Chromium for one page)
	$(BIN)/python -m pytest -m "not chaos and not fuzz and not gpu"

chaos: $(VENV)/.dev  ## long fault campaigns and trainings: up to an hour; SEED=... plays one again
	$(BIN)/python -m pytest -m "chaos and not gpu" --timeout 1500

fuzz: $(VENV)/.dev  ## hostile input that is not refused as it should be, and new examples of the properties: minutes; fails with what it finds; SEED=... plays the first again
	$(BIN)/python -m pytest -m "fuzz or hypothesis and not chaos" --hypothesis-profile default --timeout 1500

lint: $(VENV)/.dev  ## ruff, mypy, and the import contracts of pyproject.toml
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs:  ## the file tables of docs/architecture.md, from the files' docstrings
	$(PYTHON) -m docs.make_architecture

bench: $(VENV)/.run $(DEMO)/output/_stats.json  ## benchmarks, each as a ratio against a bare baseline in the same run
	$(BIN)/python -m benchmarks.model_speed --quick
	$(BIN)/python -m benchmarks.reading
	$(BIN)/python -m benchmarks.pipeline
	$(BIN)/python -m benchmarks.quality
	$(BIN)/python -m benchmarks.view_speed --source $(DEMO)/output
	$(BIN)/python -m benchmarks.curate_speed --source $(DEMO)/output

pictures: $(VENV)/.dev $(DEMO)/output/_stats.json  ## docs/images again, from the demo and the bundled model (needs Chromium)
	$(BIN)/python -m docs.make_images --demo $(DEMO)

# A small real dataset: the example shards, annotated with the bundled model.
$(DEMO)/output/_stats.json: | $(VENV)/.run
	$(BIN)/python -m examples.demo $(DEMO)

clean:  ## remove the environment and everything that the targets made
	rm -rf $(VENV) $(DEMO) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch first and alone: the CPU build, unless the machine's own index says otherwise.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	@touch $@

$(VENV)/.run: pyproject.toml constraints.txt $(VENV)/.torch
	$(PIP) -e '.[pipeline,s3,train,curate,trust]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) -e '.[pipeline,s3,train,curate,trust,export,dev]'
	@touch $@
