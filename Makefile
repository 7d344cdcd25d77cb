# Everything a contributor types. `make help` lists the targets.
.DEFAULT_GOAL := help
.SUFFIXES:
.NOTPARALLEL:
.PHONY: demo unit packages test test-all up check bench chaos clean help lock setup lint format pictures previous docs audit release image image-test chart newest site release-notes

# Where it is set, every process compiles all modules anew, and pytest rewrites them anew: half of its time.
unexport PYTHONDONTWRITEBYTECODE

ROWS ?= 20000
PORT ?= 8000
WORKERS ?= 1
MINUTES ?= 30
ARGS ?=
TEST_PROCESSES ?= 4
# Some unit tests wait for threads and processes. One process more than there are cores leaves no core idle.
UNIT_PROCESSES = $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
EXPLORE ?= 1
PYTHON_ENV := .venv/bin/python
READY := .venv/.ready
NODE_MODULES := tests/node/node_modules/.package-lock.json
PYTEST = $(PYTHON_ENV) -m pytest --numprocesses $(TEST_PROCESSES) --dist loadgroup
UV = $(or $(shell command -v uv),.venv/bin/uv)
COMPILE = $(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## Start everything, export the sample in every format into demo-exports/, stop (ROWS=)
	@$(PYTHON_ENV) -m dev demo --rows $(ROWS)

unit: $(READY) $(NODE_MODULES) ## Run the unit tests, which need no services: the inner loop (ARGS= goes to pytest)
	@$(PYTEST) $(if $(filter file,$(origin TEST_PROCESSES)),--numprocesses $(UNIT_PROCESSES)) -p no:schemathesis \
		--hypothesis-profile=inner-loop -m "not slow" $(or $(ARGS),tests/unit)

test: packages $(READY) $(NODE_MODULES) ## Run the tests on real local services, without the slow ones (ARGS= goes to pytest)
	@$(PYTEST) $(if $(filter file,$(origin TEST_PROCESSES)),--numprocesses 5) -m "not slow" $(ARGS)

test-all: packages $(READY) $(NODE_MODULES) ## Run every test, slow ones too, with new random inputs and order (EXPLORE=0: the same); print the coverage
	@$(PYTEST) $(if $(filter 0,$(EXPLORE)),-p no:randomly,--hypothesis-profile=explore) --cov --cov-report=term:skip-covered $(ARGS)

packages:
	@./requirements/system.sh

up: $(READY) ## Run the service on this machine until Ctrl-C (PORT=, WORKERS=, ROWS=)
	@$(PYTHON_ENV) -m dev up --port $(PORT) --workers $(WORKERS) --rows $(ROWS)

lint: $(READY) ## Check style, types and the direction of imports
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

check: lint test-all ## What CI runs: lint, then every test

image: $(READY) ## Build the image with podman or Docker (without one of them it fails with a line that says so)
	@$(PYTHON_ENV) -m dev image

image-test: $(READY) ## Build the image, run every process from it as docker-compose.yml does, export, stop
	@$(PYTHON_ENV) -m dev image-test

chart: $(READY) ## Check the Helm chart, and write what it renders into tests/unit/data/chart
	@$(UV) run --quiet --isolated --no-project --with-requirements requirements/chart.txt python tools/chart.py

bench: $(READY) ## Measure formats against their peers, side by side (WHAT=jobs, scale, api, schedules, streams or parts: those)
	@$(PYTHON_ENV) -m bench$(if $(WHAT),.$(WHAT)) $(ARGS)

chaos: $(READY) ## Break everything while jobs run, over and over (MINUTES=, and CHAOS_SEED= to repeat a run)
	@$(PYTHON_ENV) -m tests.chaos $(MINUTES)

docs: $(READY) ## Write what is generated in docs/ anew: descriptions, schemas, licences, the table of settings
	@$(PYTHON_ENV) -m tools.generate

previous: $(READY) ## Keep the wheels and the documents of this version, to compare the next with them
	@rm -f tests/chaos/previous/*.whl
	@for part in . streaming_exporter; do \
		(cd $$part && $(CURDIR)/$(PYTHON_ENV) -m hatchling build -t wheel -d $(CURDIR)/tests/chaos/previous); done
	@$(PYTHON_ENV) -m tools.compatibility keep

release: $(READY) ## Check, set the version, date the changelog, build wheels and image (VERSION=0.2.0)
	@$(PYTHON_ENV) -m tools.release $(or $(VERSION),$(error make release needs VERSION=, such as VERSION=0.2.0))

release-notes: $(READY) ## Print what the changelog has about one version (VERSION=0.2.0)
	@$(PYTHON_ENV) -m tools.release --notes $(or $(VERSION),$(error make release-notes needs VERSION=))

pictures: $(READY) $(NODE_MODULES) ## Take the README's pictures of the page anew
	@EXPORTER_TEST_SCREENSHOTS=docs/images $(PYTHON_ENV) -m pytest -q tests/e2e/test_page.py -k pictures
	@$(PYTHON_ENV) -m tools.demo_picture

format: $(READY) ## Rewrite the code in the project's style
	@.venv/bin/ruff check --fix-only --quiet .
	@.venv/bin/ruff format --quiet .

site: $(READY) ## Build the documentation as a site in .local/site/html, with a check of all links
	@$(PYTHON_ENV) -m tools.site write
	@NO_MKDOCS_2_WARNING=1 $(UV) run --quiet --isolated --no-project --with-requirements requirements/site.txt \
		mkdocs build --quiet --strict --config-file .local/site/mkdocs.yml
	@$(PYTHON_ENV) -m tools.site check

newest: $(READY) ## Run the tests of consumer and worker with the newest Faust and aiokafka, past the bounds
	@./requirements/newest.sh "$(UV)" $(ARGS)

audit: $(READY) ## Known faults, licences and a list (CycloneDX) of the packages in the image, in .local/sbom.cdx.json
	@$(PYTHON_ENV) requirements/audit.py "$(UV)" $(ARGS)

setup: $(READY) $(NODE_MODULES) ## Create or update .venv from the locked requirements, and what tests need of Node.js

lock: ## Resolve the requirements again and write the lock files (UPGRADE=1 takes newer versions)
	@test -x "$(UV)" || ./requirements/setup.sh
	@$(COMPILE) $(if $(UPGRADE),--upgrade) --no-emit-package streaming-exporter --all-extras --group dev \
		-o requirements/dev.txt pyproject.toml
	@$(COMPILE) $(if $(UPGRADE),--upgrade) --no-emit-package streaming-exporter -c requirements/dev.txt \
		--extra worker --extra api --extra parquet --extra fonts --extra tracing -o requirements/runtime.txt pyproject.toml
	@$(COMPILE) $(if $(UPGRADE),--upgrade) -c requirements/dev.txt -o requirements/uv.txt requirements/uv.in
	@$(COMPILE) $(if $(UPGRADE),--upgrade) -c requirements/dev.txt -o requirements/build.txt requirements/build.in
	@$(COMPILE) $(if $(UPGRADE),--upgrade) -o requirements/audit.txt requirements/audit.in
	@$(COMPILE) $(if $(UPGRADE),--upgrade) -o requirements/chart.txt requirements/chart.in
	@$(COMPILE) $(if $(UPGRADE),--upgrade) -o requirements/site.txt requirements/site.in

clean: ## Remove the virtual environment, local data, caches and demo files
	@rm -rf .venv .local tests/node/node_modules demo-exports .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml streaming_exporter/pyproject.toml requirements/dev.txt requirements/uv.txt requirements/setup.sh
	@./requirements/setup.sh
	@touch $@

# Only tests of the page and of the TypeScript client use these, so the rest works without Node.js.
$(NODE_MODULES): tests/node/package-lock.json
	@if command -v npm >/dev/null; then cd tests/node && npm ci --silent && touch node_modules/.package-lock.json; \
	else echo "setup: npm was not found; tests that need Node.js will fail until it is installed" >&2; fi
