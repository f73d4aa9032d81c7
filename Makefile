# `make demo` and `make test` do everything on a fresh machine; the second time they are fast.
PYTHON ?= python3
VENV := .venv/bin
# What is compiled stays, wherever the environment says otherwise: each process would do it anew.
unexport PYTHONDONTWRITEBYTECODE

UV_COMPILE := $(VENV)/uv pip compile -q --universal --no-strip-extras --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header

.PHONY: demo test cover serve lint bench lock stop venv ready

demo: ready     ## a small course, judged end to end
	@$(VENV)/commserver demo $(ARGS)

serve: ready    ## the same, and it stays open
	@$(VENV)/commserver demo --keep $(ARGS)

test: ready     ## the whole suite; ARGS="-k name" for a part of it
	@$(PYTHON) scripts/prepare.py postgresql peers
	@$(VENV)/python -m pytest -n 2 --dist worksteal $(ARGS)

cover: ready    ## the same, and which lines nothing has run; a third slower
	@$(PYTHON) scripts/prepare.py postgresql peers
	@$(VENV)/python -m pytest --cov $(ARGS)

lint: venv
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy

bench: ready
	@$(VENV)/python -m benchmarks all $(ARGS)

lock: venv      ## after a change of requirements*.in; ARGS=--upgrade for newer versions of all
	$(UV_COMPILE) $(ARGS) -o requirements.lock requirements.in
	$(UV_COMPILE) $(ARGS) -o requirements-dev.lock requirements-dev.in

stop:           ## ends the Docker engine that `ready` has started, if it has
	@$(PYTHON) scripts/prepare.py engine-stop

venv:
	@$(PYTHON) scripts/prepare.py venv

ready:
	@$(PYTHON) scripts/prepare.py venv engine
	@$(VENV)/commserver images build
