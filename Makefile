PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
EXPERIMENT := encoder-reduction

# Entry points run with the `python` they find first.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: study test quick mutations lint ui server status clean

study: $(VENV)/installed ## the whole plan on the packaged model and real text, no GPU or model hub needed
	mlflow run . --env-manager local --experiment-name $(EXPERIMENT) -P preset=packaged

test: $(VENV)/installed-dev ## every test that this machine can run
	python -m pytest -m "not alone" --numprocesses logical --maxprocesses 4 --dist loadgroup --no-loadscope-reorder
	python -m pytest -m alone

quick: $(VENV)/installed-dev ## what needs neither Slurm, a browser nor a database, in a minute
	python -m pytest -m "not slow and not alone and not outside" --numprocesses 2 --dist loadgroup --no-loadscope-reorder

mutations: $(VENV)/installed-dev ## whether tests notice: breaks a copy of the sources, again and again
	python tests/mutations.py

lint: $(VENV)/installed-dev ## style, names, and which wing may import which
	ruff check .
	ruff format --check .
	PYTHONPATH=src lint-imports --no-logo

ui: $(VENV)/installed ## the MLflow UI on this checkout's runs, and where in it to look
	@MLFLOW_TRACKING_URI=sqlite:///mlflow.db python entry_points/ui.py --experiment=$(EXPERIMENT)
	mlflow ui --backend-store-uri sqlite:///mlflow.db --port 5000

server: $(VENV)/installed ## the tracking server that slurm/cluster.env describes
	slurm/server.sh

status: $(VENV)/installed ## how far a study is: make status PRESET=paper SEEDS=42,43 BUDGETS=latency:0.5
	@slurm/status.sh --preset=$(or $(PRESET),packaged) $(if $(SEEDS),--seeds=$(SEEDS)) $(if $(BUDGETS),--budgets=$(BUDGETS))

clean: ## remove the environment; runs and models stay
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.txt | $(VENV)/bin/python
	python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
