# make demo: a whole search on real images, in minutes on two cores. make test: every check. Both set up .venv first.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
JOBS ?= 2
PYTEST_ARGS ?= -n $(JOBS) --dist loadgroup

# The first interpreter that runs (a version manager's shim may not), is new enough and can make environments.
CANDIDATES := python3.11 python3 python3.12 python3.13
PYTHON ?= $(firstword $(shell for p in $(CANDIDATES); do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p; done; true))

.PHONY: demo test setup clean

demo: $(STAMP)
	$(BIN)/jaxhypernas search --workdir runs/demo

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror jaxhypernas/numerics/cpu/*.h jaxhypernas/numerics/cpu/*.cc
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
	$(BIN)/python -m pytest $(PYTEST_ARGS)

setup: $(STAMP)

# requirements.txt is the lock for Python 3.11; newer versions resolve the ranges of pyproject.toml.
$(STAMP): pyproject.toml requirements.txt
	@rm -f $@
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv and pip is needed, or name one: make PYTHON=..."; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
		echo "Installing the packages of requirements.txt into $(VENV)"; \
		$(BIN)/python -m pip install --quiet -r requirements.txt && \
		$(BIN)/python -m pip install --quiet --no-deps -e .; \
	else \
		echo "Installing the packages of pyproject.toml into $(VENV)"; \
		$(BIN)/python -m pip install --quiet -e '.[dev]'; \
	fi
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
