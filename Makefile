# make demo      from a fresh clone to a trained and tested model with its figures
# make test      unit tests and quick integration tests, JOBS (2) at a time
# make test-all  also the slow tests
# make fuzz      20,000 mutated files for the readers
# make lint      ruff and mypy
# make gpu-report
#                kernels, models, memory and DeepSpeed on a GPU, in 8 minutes; continues if it was interrupted

PYTHON ?= python3
VENV   ?= .venv
CONFIG ?= configs/camera_motion.yaml
RUN    ?= runs/camera_motion
JOBS   ?= 2

# One thread per process, because more threads than cores slow each other down.
PYTEST := OMP_NUM_THREADS=1 python -m pytest --numprocesses $(JOBS) --dist worksteal

BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)

.PHONY: demo test test-all fuzz lint gpu-report clean-demo

demo: $(VENV)/.installed
	deepspeed tools/train_net.py --cfg $(CONFIG) output_dir=$(RUN)
	deepspeed tools/test_net.py --cfg $(CONFIG) output_dir=$(RUN)
	python tools/summarize.py --run $(RUN)
	python tools/test_camera_motion.py --run $(RUN) --run camera_motion --dataset data/camera_motion --output $(RUN)/comparison

test: $(VENV)/.installed
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.installed lint
	$(PYTEST)

fuzz: $(VENV)/.installed
	python tests/fuzz/fuzz_readers.py

lint: $(VENV)/.installed
	ruff check .
	ruff format --check .
	mypy

# Needs no installation: a Python with torch, triton, timm and einops is enough.
gpu-report:
	PYTHONPATH=$(CURDIR) $(PYTHON) tools/gpu_report.py --install

$(VENV)/.installed: setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: found $$($(PYTHON) -V), expected Python 3.10 or newer; try make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "installing packages into $(VENV): about 6 GB with PyTorch's CUDA build, a few minutes"
	$(BIN)/python -m pip install --progress-bar on -c constraints.txt -e '.[test]'
	@touch $@

clean-demo:
	rm -rf $(RUN) data/camera_motion
