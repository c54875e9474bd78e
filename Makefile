# make demo      from a fresh clone to a trained, tested model and its pictures
# make test      the tests that take minutes, two at a time (JOBS=2); make test-all adds the slow ones
# make lint      ruff

PYTHON ?= python3
VENV   ?= .venv
CONFIG ?= configs/camera_motion.yaml
RUN    ?= runs/camera_motion

JOBS   ?= 2

# a thread each: more of them than cores wait for one another
PYTEST := OMP_NUM_THREADS=1 python -m pytest --numprocesses $(JOBS) --dist worksteal

BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)

.PHONY: demo test test-all lint clean-demo

demo: $(VENV)/.installed
	deepspeed tools/train_net.py --cfg $(CONFIG) output_dir=$(RUN)
	deepspeed tools/test_net.py --cfg $(CONFIG) output_dir=$(RUN)
	python tools/summarize.py $(RUN)

test: $(VENV)/.installed
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.installed lint
	$(PYTEST)

lint: $(VENV)/.installed
	ruff check .

$(VENV)/.installed: setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: Python 3.10 or newer is needed, $(PYTHON) is $$($(PYTHON) -V); try make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "installing the packages into $(VENV), about 6 GB with torch's CUDA build; this takes a few minutes"
	$(BIN)/python -m pip install --progress-bar on -c constraints.txt -e '.[test]'
	@touch $@

clean-demo:
	rm -rf $(RUN) data/camera_motion
