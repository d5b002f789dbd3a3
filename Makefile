# make demo: train a little, evaluate, show.    make test: the whole suite.    make lint: style and types.
# make bench: what is fast, against its limit.  make test-slow: the longer checks alone.
# make bench-cuda: the same on a GPU, after the golden figures there; `pytest -m cuda` runs the tests that need one.
# make test-portable: the suite as other processors and busier machines would run it.
# make torture: 20 minutes of runs that are killed, interrupted and starved at random moments, then resumed and compared.

# The first of these that is Python 3.11 to 3.13 makes the environment; `make test PYTHON=/path/to/python VENV=.venv-other`
# takes another one, in a folder of its own.
PYTHONS = $(or $(PYTHON),python3 python3.11 python3.12 python3.13)
IS_SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
VENV := .venv
BIN := $(abspath $(VENV))/bin

NAVIGATION := --env-name 2DNavigation-v0 --num-context-params 5 --hidden-size 100 --nonlinearity relu \
	--fast-batch-size 20 --fast-lr 0.5 --meta-batch-size 20 --test-batch-size 40 --num-test-steps 4 --num-workers 4 \
	--test-freq 10 --seed 42 --expname cavia --neuromodulation --nm-size 4

# Which experiments `make results` runs: names in studies/experiments.toml with commas between; all: every one; none:
# those that two cores run in some nights. As many at once as cores and memory allow, or CORES=2.
EXPERIMENTS :=
# nproc knows no container's share of the cores, and heeds OMP_NUM_THREADS.
ALLOWED = $$("$(BIN)/python" -c "from rl import machine; print(machine.$(1))")

.PHONY: results demo test test-slow test-portable torture lint bench bench-cuda clean

demo: $(VENV)/installed
	cd rl && "$(BIN)/python" main.py $(NAVIGATION) --num-batches 20 --logdir ../demo/logs --savedir ../demo/saves
	cd rl && run=$$(ls -td ../demo/logs/2DNavigation-v0/nm_cavia/*/ | head -n 1) && \
	saves=../demo/saves/2DNavigation-v0/nm_cavia/$$(basename $$run) && \
	"$(BIN)/python" test.py $$run/config.json $$saves/policy-19.pt --logdir ../demo/logs && \
	echo "TensorBoard: $(BIN)/tensorboard --logdir $(abspath demo/logs)" && \
	echo "policy:      $$(realpath $$saves/policy-19.pt)"

# Tests in which every call of the package is checked against its annotations; the others run programs and long episodes.
PARTS := $(addprefix tests/,algorithm evaluation policies sampling test_extensions.py)
# Two processes, each with whole files of tests, in their order. NumPy is loaded before tests/conftest.py can keep it to
# one thread; two whose threads wait for each other's cores take several times as long.
PYTEST = OPENBLAS_NUM_THREADS=1 "$(BIN)/python" -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test: $(VENV)/tests-installed lint
	$(PYTEST) $(PARTS)
	TYPES=unchecked $(PYTEST) $(addprefix --ignore=,$(PARTS))

test-slow: $(VENV)/tests-installed $(VENV)/studies-installed
	"$(BIN)/python" -m pytest -m slow

test-portable: $(VENV)/tests-installed
	"$(BIN)/python" -m tests.portable

torture: $(VENV)/tests-installed
	"$(BIN)/python" -m tests.torture --minutes 20

lint: $(VENV)/tests-installed
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"

bench: $(VENV)/installed
	"$(BIN)/python" -m benchmarks.bench

bench-cuda: $(VENV)/tests-installed
	"$(BIN)/python" -m benchmarks.bench_cuda

results: $(VENV)/studies-installed
	OMP_NUM_THREADS=1 "$(BIN)/snakemake" --snakefile studies/Snakefile \
		--cores $(or $(CORES),$(call ALLOWED,cores())) --resources mem_mb=$(call ALLOWED,memory() // 10**6) \
		--rerun-triggers mtime --rerun-incomplete --keep-going --quiet rules --config "experiments=$(EXPERIMENTS)" -- all

clean:
	rm -rf $(VENV) demo build *.egg-info .mypy_cache

$(VENV)/installed: rl/requirements.txt pyproject.toml
	@for python in $(PYTHONS); do \
		if $$python -c "$(IS_SUITABLE)" 2> /dev/null; then exec $$python -m venv $(VENV); fi; \
	done; \
	echo "Python 3.11 to 3.13 is needed, and not found as $(PYTHONS): name one by PYTHON=/path/to/python" >&2; exit 1
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/studies-installed: $(VENV)/installed studies/requirements.txt
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -r studies/requirements.txt
	touch $@

# gym-CTgraph is the definition that the CT-graph is held against. Its own requirements are not needed, and it is not
# needed by anything but that test.
$(VENV)/tests-installed: $(VENV)/installed tests/requirements.txt
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --no-deps gym-CTgraph==1.0
	touch $@
