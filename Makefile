# make run        one whole night: Airflow, Spark and the model on this machine
# make test       lint, types, import directions, tests        make test-long   the slow tests too
# make setup      what both do first: the environment in .venv  make doctor      what this machine lacks
# make stack      Airflow, PostgreSQL and a Spark cluster on this machine, until Ctrl-C   make stack-status, make stack-stop
# make chaos      nights under the real scheduler while things are killed: as root, over an hour
# make bench      speed beside its limits and peers (minutes)   make bench-full  an hour: ten million people too
# make lock       requirements.lock made anew                   make clean       all of it removed, lake and extracts apart

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.NOTPARALLEL:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# What a night is made of; a run of another codebook names its extract, too.
CODEBOOK ?= demo_population
EXTRACT ?=
RUN_DATE ?=
LAKE ?= ./lake
PEOPLE ?= 50000
SEED ?= 1
FIRST_DATE := 2026-01-01
STACK ?= .stack
PORT ?= 8080
LANDING ?= ./extracts
FAULTS ?= 60
RESUME ?=

# Recipes read these from the environment, quoted, so that folders may have spaces in their names.
export CODEBOOK EXTRACT RUN_DATE LAKE PEOPLE SEED

PROJECT := $(CURDIR)
VENV := $(PROJECT)/.venv
TORCH := torch==2.13.0
# The environment is made anew when one of the two changes.
STAMP := .venv/.set-up-$(shell cat requirements.lock pyproject.toml | cksum | tr ' ' '-')
AIRFLOW_STAMP := .airflow/.migrated-$(shell sed -n 's/^apache-airflow==//p' requirements.lock)

# spark-submit, mindcensus and airflow are the environment's own, whatever else this machine has.
export PATH := $(VENV)/bin:$(PATH)
export SPARK_HOME := $(VENV)/lib/python3.11/site-packages/pyspark
export PYSPARK_PYTHON := $(VENV)/bin/python
export PYSPARK_DRIVER_PYTHON := $(VENV)/bin/python
unexport PYTHONPATH PYTHONHOME
export AIRFLOW_HOME := $(PROJECT)/.airflow
export AIRFLOW__CORE__DAGS_FOLDER := $(PROJECT)/dags
export AIRFLOW__CORE__LOAD_EXAMPLES := False
export PYTHONUNBUFFERED := 1
export AIRFLOW__USAGE_DATA_COLLECTION__ENABLED := False
# Where Spark runs: this machine, or a cluster's master. Driver and settings: docs of Airflow's Spark connection.
export AIRFLOW_CONN_SPARK_DEFAULT ?= {"conn_type": "spark", "host": "local[*,2]"}

# Of the log: each task's name, and what its stage says, without what its helpers say.
define SHOWN
s/.*\[DAG TEST\] starting task_id=\([^ ]*\).*/   \1/
s/^[^ ]* \[[a-z]* *\] \(.*[^ ]\) *\[airflow\.task\.stage\]\(.*\)/     \1 \2/
T
s/ \(loc\|run_date\|token\)=[^ ]*//g
/^     \(Spark-Submit cmd\|Using Spark's default\|WARNING: Using incubator\|Setting Spark\|at \|\.\.\. \|Tmp dir\|Running command\|Output:\|Command exited\)/d
/^     [0-9/]* [0-9:]* \(INFO\|WARN\) /d
p
endef
export SHOWN

.PHONY: run test test-long stack stack-status stack-stop chaos bench bench-full setup doctor lock clean check-machine

run: setup $(AIRFLOW_STAMP)
	@lake=$$(realpath -m -- "$$LAKE")
	last=$$(ls -d "$$lake"/restricted/runs/run_date=*/[0-9]*.json 2>/dev/null | tail -n 1 | sed 's|.*run_date=\([^/]*\)/.*|\1|') || true
	run_date=$${RUN_DATE:-$$( [ -z "$$last" ] && echo $(FIRST_DATE) || date -u -d "$$last + 1 day" +%F )}
	codebook=$$CODEBOOK
	[ ! -f "$$codebook" ] || codebook=$$(realpath -- "$$codebook")
	extract=$$EXTRACT
	if [ -z "$$extract" ]; then
	    if [ "$$codebook" != demo_population ]; then
	        echo "make run: name the extract that $$CODEBOOK describes: make run CODEBOOK=$$CODEBOOK EXTRACT=PATH" >&2; exit 2
	    fi
	    extract="extracts/demo_$${PEOPLE}_$${SEED}_$$run_date"
	    if [ ! -d "$$extract" ]; then
	        echo "== simulating an extract of $$PEOPLE people: $$extract"
	        mkdir -p extracts
	        mindcensus demo --people "$$PEOPLE" --seed "$$SEED" --run-date "$$run_date" --out "$$extract" 2>.airflow/demo.log || {
	            tail -n 3 .airflow/demo.log >&2; exit 1; }
	    fi
	fi
	extract=$$(realpath -m -- "$$extract")
	mindcensus doctor --lake "$$lake" >.airflow/doctor.log || { sed -n 's/^MISSING/make run:/p' .airflow/doctor.log >&2; exit 1; }
	echo "== the night of $$run_date: $$codebook, $$extract"
	conf=$$(python -c 'import json, sys; print(json.dumps(dict(zip(("lake", "run_date", "codebook", "extract"), sys.argv[1:]), marker="")))' \
	    "$$lake" "$$run_date" "$$codebook" "$$extract")
	log=".airflow/night-$$run_date.log"
	count_manifests() { { find "$$lake/restricted/runs/run_date=$$run_date" -name '[0-9]*.json' 2>/dev/null || true; } | wc -l; }
	before=$$(count_manifests)
	airflow dags test population_nightly "$$run_date" --conf "$$conf" 2>&1 | tee "$$log" | sed -un "$$SHOWN" || {
	    echo "make run: the night of $$run_date failed: the stage's own words stand above, the whole log is $$log" >&2; exit 1; }
	[ "$$(count_manifests)" -gt "$$before" ] || {
	    echo "make run: Airflow ended well, but the night of $$run_date is not published: look at $$log" >&2; exit 1; }
	echo
	echo "== done: the night of $$run_date is published"
	echo "report               $$lake/public/reports/latest.html"
	echo "cohort estimates     $$lake/public/catalog.duckdb"
	echo "people's profiles    $$lake/restricted/catalog.duckdb, for the lake's owner alone"
	echo "ask it               .venv/bin/mindcensus query \"FROM cohorts_latest\" --lake '$$lake'"
	echo "the next night       make run"

$(AIRFLOW_STAMP): $(STAMP)
	@echo "== preparing Airflow's database (once)"
	# Without a stamp, an earlier attempt was broken off.
	ls .airflow/.migrated-* >/dev/null 2>&1 || rm -rf .airflow
	mkdir -p .airflow
	airflow db migrate >.airflow/migrate.log 2>&1 || { tail -n 5 .airflow/migrate.log >&2; exit 1; }
	rm -f .airflow/.migrated-*
	touch "$@"

test: setup
	@echo "== lint"; ruff check .; ruff format --check .
	echo "== types"; mypy
	echo "== import directions"; lint-imports --no-logo
	# Half of a test's time is the start of a JVM: two at once, a file's tests together, for they share a night.
	echo "== tests"; pytest -m "not slow" -n 2 --dist loadfile

test-long: setup
	@MINDCENSUS_DIRTY_EXTRACTS=1000 pytest -m "slow or not slow"

# The services of docker/compose.yaml as plain processes. LAKE and LANDING name the folders, STACK where the rest is kept.
stack: setup
	@exec python docker/stack.py start --folder "$(STACK)" --port $(PORT) --lake "$$LAKE" --landing "$(LANDING)"

stack-status stack-stop:
	@exec python docker/stack.py $(@:stack-%=%) --folder "$(STACK)"

# Random faults over whole nights under the real scheduler, as root; RESUME=--resume goes on with what .chaos holds.
chaos: setup
	@exec python -m benchmarks.chaos --faults $(FAULTS) --seed $(SEED) $(RESUME)

# A session of its own, so that processor time is this run's alone.
bench: setup
	@setsid -w python -m benchmarks.suite

bench-full: setup
	@setsid -w python -m benchmarks.suite --full

doctor: setup
	@mindcensus doctor --lake "$$LAKE"

setup: check-machine $(STAMP)

# doctor.py is of the standard library alone, so that it can speak before anything is installed.
check-machine:
	@case "$$(uname -sm)" in "Linux x86_64") ;; *) echo "make: the lock is for Linux on x86_64, not for $$(uname -sm)" >&2; exit 1;; esac
	python=.venv/bin/python
	if ! "$$python" -c '' 2>/dev/null; then python=$$($(FIND_PYTHON)); fi
	"$$python" -c 'import sys; from jobs.doctor import check_java; found = check_java(); found.ok or sys.exit("make: " + found.sentence)'

# pyenv's python3.11 may be a shim without a Python behind it, so each is tried.
define FIND_PYTHON
for name in python3.11 python3 python; do \
    if "$$name" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then command -v "$$name"; exit; fi; \
done; \
echo "make: Python 3.11 is missing: install it (Debian: apt-get install python3.11 python3.11-venv)" >&2; exit 1
endef

$(STAMP):
	@# Without a stamp, an earlier set-up was broken off: nothing in the folder can be trusted.
	if ! ls .venv/.set-up-* >/dev/null 2>&1; then
	    python=$$(PATH="$${PATH#*:}"; $(FIND_PYTHON))
	    "$$python" -c 'import ensurepip, venv' 2>/dev/null || {
	        echo "make: Python's venv module is missing: install it (Debian: apt-get install python3.11-venv)" >&2; exit 1; }
	    echo "== setting up .venv (once, some minutes)"
	    rm -rf .venv
	    "$$python" -m venv .venv
	fi
	rm -f .venv/.set-up-*
	pip="python -m pip -qq --no-input --disable-pip-version-check install --no-compile"
	echo "   1/3 $(TORCH)"; $$pip $(TORCH)
	echo "   2/3 requirements.lock"; $$pip --no-deps -r requirements.lock
	echo "   3/3 mindcensus"; $$pip --no-deps --no-build-isolation -e .
	touch "$@"

# torch and what it brings stay out: its build (CPU, CUDA) is the machine's choice.
lock:
	@scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT
	python=$$($(FIND_PYTHON))
	"$$python" -m venv "$$scratch/venv"
	"$$scratch/venv/bin/pip" -qq --disable-pip-version-check install uv
	"$$scratch/venv/bin/uv" pip compile pyproject.toml --quiet --group dev --python-version 3.11 \
	    --python-platform x86_64-manylinux_2_28 --no-emit-index-url --no-header --no-annotate \
	    | grep -vE '^(torch|triton|nvidia-|cuda-)' >"$$scratch/lock"
	cp "$$scratch/lock" requirements.lock
	echo "requirements.lock: $$(wc -l <requirements.lock) packages"

clean:
	@rm -rf .venv .airflow .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis ./*.egg-info spark-warehouse
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
