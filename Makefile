# hoso. `make` alone lists the commands; each sets up what it needs (.venv) by itself.
# Options are passed on by ARGS, for example: make demo ARGS="--json out.json"
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
	  'make demo          một tuần của một xã, kho dân cư bị chậm giữa tuần / a commune'"'"'s week, the registry slow in the middle' \
	  'make up            chạy hệ thống, Ctrl-C để dừng / the stack, until Ctrl-C' \
	  'make doctor        kiểm tra máy này / examine this machine' \
	  'make test          mọi kiểm thử chỉ cần gói Python / every test that needs no more than wheels' \
	  'make test-kafka    kiểm thử chuyển phát trên Apache Kafka thật (Java >= 17, Maven) / delivery tests on a real Apache Kafka' \
	  'make test-clients  đọc tài liệu bằng bộ đọc chính thức (Node.js, npm) / our documents, read by the official parsers' \
	  'make check         định dạng, kiểu, ranh giới / format, lint, types, import contracts' \
	  'make chaos         giết mọi thứ khi đang có việc, rồi đối chứng / kill everything under load (SEED= MINUTES=)' \
	  'make bench         đo bên cạnh các công cụ khác, nửa giờ / measured beside other tools, half an hour (make bench-long: more)' \
	  'make format        sửa định dạng / put the format right' \
	  'make docs          sinh lại tài liệu / generate the documents again' \
	  'make lock          khoá lại các gói (cần uv) / lock the packages again (needs uv)' \
	  'ARGS="…"           tuỳ chọn thêm / options passed on; PYTHON=… chọn Python / chooses the Python'

# Also when somebody has put other packages into .venv: the stamp is the lock that was installed.
$(READY): requirements/dev.lock deploy/local/prepare.sh
	@sh deploy/local/prepare.sh

demo: $(READY)
	@exec $(BIN)/hoso demo $(ARGS)

up: $(READY)
	@exec $(BIN)/hoso up $(ARGS)

doctor: $(READY)
	@exec $(BIN)/hoso doctor $(ARGS)

# Tests wait for processes more than they compute: three test processes side by side, each with its own PostgreSQL, broker
# and share of the ports (tests/conftest.py). One after the other: make test TESTS_AT_ONCE=0
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

# The generated documents: events, AsyncAPI, JSON Schemas, roles.
docs: $(READY)
	$(PY) -m deploy.docs

lock:
	@command -v uv >/dev/null || { echo 'Cần uv: https://docs.astral.sh/uv / uv is needed.' >&2; exit 1; }
	uv pip compile --universal --generate-hashes --python-version 3.11 requirements/run.in -o requirements/run.lock $(ARGS)
	uv pip compile --universal --generate-hashes --python-version 3.11 requirements/dev.in -o requirements/dev.lock $(ARGS)
	uv pip compile --universal --generate-hashes --python-version 3.11 -c requirements/dev.lock requirements/bench.in -o requirements/bench.lock $(ARGS)

# The delivery tests on a real Apache Kafka: Java >= 17 and Maven. Two test processes, each with a broker of half a gigabyte.
BROKERS_AT_ONCE ?= 2
test-kafka: $(READY)
	@HOSO_TEST_KAFKA=apache exec $(PY) -m pytest --numprocesses $(BROKERS_AT_ONCE) --dist worksteal tests/kafka tests/shared tests/kills tests/notify tests/verify tests/journeys $(ARGS)

# The official parsers read our documents: Node.js >= 18 and npm.
test-clients:
	@exec sh tests/clients/run.sh

# Kills everything at random under load, then proves that nothing was lost: make chaos SEED=7 MINUTES=3 [ARGS="--broker apache"]
SEED ?= 1
MINUTES ?= 3
chaos: $(READY)
	@exec $(PY) -m deploy.chaos --seed $(SEED) --minutes $(MINUTES) $(ARGS)

# Measured side by side with what one could have picked instead (bench/README.md). The peers' packages go into a virtual
# environment of their own, so that nothing else depends on them.
BENCH_READY := .venv-bench/installed.lock
$(BENCH_READY): requirements/bench.lock $(READY)
	$(PY) -m venv --clear .venv-bench
	.venv-bench/bin/python -m pip install --disable-pip-version-check --no-input --quiet --require-hashes -r requirements/bench.lock
	@cp requirements/bench.lock $(BENCH_READY)

bench: $(BENCH_READY)
	@exec .venv-bench/bin/python -m bench $(ARGS)

bench-long: $(BENCH_READY)
	@exec .venv-bench/bin/python -m bench --long $(ARGS)
