# hoso. `make` without a target lists the commands. Each command sets up what it needs (.venv) by itself.
# ARGS passes options on, for example: make demo ARGS="--json out.json"
SHELL := /bin/sh
ARGS ?=
export PYTHONUTF8 := 1
BIN := .venv/bin
PY := $(BIN)/python
READY := .venv/installed.lock

.DEFAULT_GOAL := help
.PHONY: help demo up doctor test test-kafka test-clients chaos bench bench-long check format docs lock

help:
	@printf '%s\n' \
	  'make demo          một tuần của một xã / a week of one commune' \
	  'make up            chạy hệ thống đến Ctrl-C / run the stack until Ctrl-C' \
	  'make doctor        kiểm tra máy này / check this machine' \
	  'make test          kiểm thử chỉ cần gói Python / tests that need only wheels' \
	  'make test-kafka    kiểm thử trên Kafka thật / tests on a real Kafka (Java, Maven)' \
	  'make test-clients  bộ đọc chính thức / the official parsers (Node.js)' \
	  'make check         định dạng, kiểu, ranh giới / format, lint, types, imports' \
	  'make chaos         giết mọi thứ khi có việc / kill all under load (SEED= MINUTES=)' \
	  'make bench         đo hiệu năng, nửa giờ / benchmarks, half an hour' \
	  'make bench-long    đo hiệu năng, lâu hơn / longer benchmarks' \
	  'make format        sửa định dạng / format the sources' \
	  'make docs          sinh lại tài liệu / regenerate the documents' \
	  'make lock          khoá lại các gói (cần uv) / update the lock files (needs uv)' \
	  'ARGS="…"           tuỳ chọn thêm / more options; PYTHON=… chọn Python / the Python'

# The stamp is a copy of the lock file that was installed last.
$(READY): requirements/dev.lock deploy/local/prepare.sh
	@sh deploy/local/prepare.sh

demo: $(READY)
	@exec $(BIN)/hoso demo $(ARGS)

up: $(READY)
	@exec $(BIN)/hoso up $(ARGS)

doctor: $(READY)
	@exec $(BIN)/hoso doctor $(ARGS)

# Tests wait for processes more than they compute: three test processes in parallel, each with its own PostgreSQL, broker
# and share of the ports (tests/conftest.py). Without parallel processes: make test TESTS_AT_ONCE=0
TESTS_AT_ONCE ?= 3
test: $(READY)
	@exec $(PY) -m pytest --numprocesses $(TESTS_AT_ONCE) --dist worksteal $(ARGS)

check: $(READY)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -c 'from importlinter.cli import lint_imports_command as check; check()'
	$(PY) -m deploy.docs --check

format: $(READY)
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

# Regenerate events, AsyncAPI, JSON Schemas and roles.
docs: $(READY)
	$(PY) -m deploy.docs

lock:
	@command -v uv >/dev/null || { echo 'Cần uv: https://docs.astral.sh/uv / uv is needed.' >&2; exit 1; }
	uv pip compile --universal --generate-hashes --python-version 3.11 requirements/run.in -o requirements/run.lock $(ARGS)
	uv pip compile --universal --generate-hashes --python-version 3.11 requirements/dev.in -o requirements/dev.lock $(ARGS)
	uv pip compile --universal --generate-hashes --python-version 3.11 -c requirements/dev.lock requirements/bench.in -o requirements/bench.lock $(ARGS)

# Delivery tests on a real Apache Kafka (needs Java >= 17 and Maven). Two test processes, each with a broker of 0.5 GB.
BROKERS_AT_ONCE ?= 2
test-kafka: $(READY)
	@HOSO_TEST_KAFKA=apache exec $(PY) -m pytest --numprocesses $(BROKERS_AT_ONCE) --dist worksteal tests/kafka tests/shared tests/kills tests/notify tests/verify tests/journeys $(ARGS)

# The official parsers read our documents: Node.js >= 18 and npm.
test-clients:
	@exec sh tests/clients/run.sh

# Kill everything at random under load, then verify that nothing is lost: make chaos SEED=7 MINUTES=3 [ARGS="--broker apache"]
SEED ?= 1
MINUTES ?= 3
chaos: $(READY)
	@exec $(PY) -m deploy.chaos --seed $(SEED) --minutes $(MINUTES) $(ARGS)

# Benchmarks beside the alternatives to hoso (bench/README.md). The packages of these peers have a virtual environment
# of their own, so that nothing else depends on them.
BENCH_READY := .venv-bench/installed.lock
$(BENCH_READY): requirements/bench.lock $(READY)
	$(PY) -m venv --clear .venv-bench
	.venv-bench/bin/python -m pip install --disable-pip-version-check --no-input --quiet --require-hashes -r requirements/bench.lock
	@cp requirements/bench.lock $(BENCH_READY)

bench: $(BENCH_READY)
	@exec .venv-bench/bin/python -m bench $(ARGS)

bench-long: $(BENCH_READY)
	@exec .venv-bench/bin/python -m bench --long $(ARGS)
