# Every target sets up what it needs. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
KEEP ?= 3
TARGET ?= local
OVERRIDES ?=
RUNS ?= last 2
DOCKER ?= docker
STAGES ?= data cpu
CASES ?= 10000
SOURCE ?= src
# Kubeflow's address; a shell may have a HOST of its own, which is this machine's name.
AT_HOST := $(if $(filter command line,$(origin HOST)),KF_PIPELINES_ENDPOINT='$(HOST)')
LOCK := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --quiet

.DEFAULT_GOAL := help
.PHONY: help setup pipeline-run pipeline-follow pipeline-plan pipeline-compile sweep compare notebooks mlflow-ui tensorboard weights-stage champion clean-runs cluster-up dashboard cluster-down doctor docs docs-reference test-fast test test-all coverage campaign lint format types lock images images-push benchmark benchmark-data benchmark-training

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/installed ## Make the virtual environment from the hashed lock file

$(VENV)/installed: requirements/dev.txt pyproject.toml
	@{ $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' && \
	$(PYTHON) -m venv $(VENV) && \
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt && \
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . && \
	touch $@; } || { echo "make setup failed. What this machine has:" >&2; \
		PYTHON=$(PYTHON) VENV=$(VENV) ./doctor.sh setup >&2; exit 2; }

pipeline-run: setup ## Compile the pipeline and run it (TARGET=local, HOST=, OVERRIDES="profile=full ...")
	@$(AT_HOST) $(BIN)/python -m pipelines.run --target $(TARGET) $(OVERRIDES)

pipeline-follow: setup ## Follow a run on a cluster to its end (RUN=, TARGET=kind)
	@test -n "$(RUN)" || { echo "Say which run: make pipeline-follow RUN=<its name or id>" >&2; exit 2; }
	@$(AT_HOST) $(BIN)/python -m pipelines.follow --target $(if $(filter local,$(TARGET)),kind,$(TARGET)) '$(RUN)'

pipeline-plan: setup ## Show which steps a run would execute, which are cached, and why (TARGET, OVERRIDES)
	@$(BIN)/python -m pipelines.plan --target $(TARGET) $(OVERRIDES)

pipeline-compile: setup ## Compile the pipeline to build/pipeline.yaml (TARGET, OVERRIDES)
	@$(BIN)/python -m pipelines.compile --target $(TARGET) $(OVERRIDES)

sweep: setup ## Run several configurations, and compare them (OVERRIDES="seed=1,2 phases=joint,mission", TARGET)
	@$(AT_HOST) $(BIN)/python -m pipelines.sweep --target $(TARGET) $(OVERRIDES)

compare: setup ## Compare runs by name or id, or the newest ones (RUNS="A B ...", RUNS="last 2"; a cluster's: TARGET=kind)
	@$(AT_HOST) $(BIN)/python -m pipelines.compare --target $(TARGET) $(RUNS)

notebooks: $(VENV)/notebooks ## Open the notebooks in JupyterLab
	@$(BIN)/jupyter lab --notebook-dir notebooks

$(VENV)/notebooks: requirements/notebooks.txt $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/notebooks.txt
	touch $@

mlflow-ui: setup ## Open MLflow with the runs, http://127.0.0.1:5000
	@$(BIN)/mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/runs/mlflow.db}"

tensorboard: setup ## Open TensorBoard with the trainings, http://127.0.0.1:6006 (LOGS=s3://... for a cluster's)
	@$(BIN)/python -m pipelines.tensorboard $(LOGS)

champion: setup ## Make a version of the registered model the champion (MODEL=3)
	@test -n "$(MODEL)" || { echo "Say which: make champion MODEL=3" >&2; exit 2; }
	@$(BIN)/brain-tumor champion $(MODEL)

weights-stage: setup ## Copy the ImageNet weights to a bucket, for pods without internet (TO=s3://..., OVERRIDES)
	@test -n "$(TO)" || { echo "Say where to: make weights-stage TO=s3://bucket/folder" >&2; exit 2; }
	@$(BIN)/python -m pipelines.stage_weights $(TO) $(OVERRIDES)

clean-runs: setup ## Delete the artifacts and checkpoints of all but the newest runs (KEEP=3)
	@$(BIN)/python -m pipelines.clean_runs $(KEEP)

cluster-up: ## Make a local Kubernetes with Kubeflow Pipelines and MLflow, or complete it (DATA=folder, GPU=real)
	@DOCKER=$(DOCKER) kind-cluster/doctor.sh
	@$(MAKE) --no-print-directory images
	@DOCKER=$(DOCKER) DATA="$(DATA)" GPU="$(GPU)" STAGES="$(STAGES)" kind-cluster/up.sh

dashboard: ## Forward the cluster's dashboard, API, MLflow and object store to this machine
	@kind-cluster/dashboard.sh

cluster-down: ## Delete the cluster with its runs
	@kind-cluster/down.sh

doctor: ## Check what this machine lacks for the setup and for the cluster
	@PYTHON=$(PYTHON) VENV=$(VENV) DOCKER=$(DOCKER) ./doctor.sh

docs: setup ## Build the documentation's site, build/site/index.html
	@$(BIN)/python -m documentation --check
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs-reference: setup ## Regenerate the parts of docs/ that are made from the code
	@$(BIN)/python -m documentation

test-fast: setup ## Run the unit tests that need no TensorFlow, browser, object store or MLflow (two minutes)
	@$(BIN)/python -m pytest tests/unit --numprocesses 2 --dist loadfile -m "not slow and not campaign"

test: setup ## Run the tests (HEAVY=1: those with containers, killed runs, notebooks and hostile input too, as CI does)
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --durations 30 $(if $(HEAVY),-m "not campaign")

test-all: setup ## Run the tests and the long campaigns (hours more)
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m ""

coverage: setup ## Measure which lines the tests run
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --cov

campaign: setup ## Run the steps on hostile input and count the outcomes (CASES=10000; SOURCE=src, or another version's)
	@$(BIN)/python -m tests.campaign --cases $(CASES) --source $(SOURCE)

lint: setup ## Check style, docstrings, complexity, imports and the order of the library's packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/hadolint images/Dockerfile
	@$(BIN)/shellcheck --external-sources --source-path=SCRIPTDIR kind-cluster/*.sh kind-cluster/gpu/*.sh doctor.sh .ci/run

types: setup ## Check types, those of the tests too
	@$(BIN)/mypy

format: setup ## Format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: setup ## Update the lock files from pyproject.toml
	@$(LOCK) --extra data --extra cpu --extra docs --extra dev -o requirements/dev.txt
	@for image in data cpu gpu vertex notebooks; do $(LOCK) --extra $$image -c requirements/dev.txt -o requirements/$$image.txt; done

images: setup ## Build the steps' images, tagged by their content (STAGES="data cpu gpu", BASE_IMAGE=...)
	@tag=$$($(BIN)/python -m pipelines.image); for stage in $(STAGES); do \
		DOCKER_BUILDKIT=1 $(DOCKER) build --file images/Dockerfile --target $$stage --build-arg TAG=$$tag \
			$(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) --tag brain-tumor-$$stage:$$tag . || exit 1; done

images-push: images ## Push the images to a registry (REGISTRY=registry.example/team)
	@test -n "$(REGISTRY)" || { echo "Say where to: make images-push REGISTRY=registry.example/team" >&2; exit 2; }
	@tag=$$($(BIN)/python -m pipelines.image); for stage in $(STAGES); do \
		$(DOCKER) tag brain-tumor-$$stage:$$tag $(REGISTRY)/brain-tumor-$$stage:$$tag || exit 1; \
		$(DOCKER) push $(REGISTRY)/brain-tumor-$$stage:$$tag || exit 1; done

benchmark: setup ## Time a whole run and an unchanged second one
	@$(BIN)/python -m benchmarks.pipeline $(OVERRIDES)

benchmark-data: setup ## Time ingest, build_tfrecords and the input pipeline, and measure their memory
	@$(BIN)/python -m benchmarks.data

benchmark-training: setup ## Time the training step, the feature cache and the start of a training
	@$(BIN)/python -m benchmarks.train_step
