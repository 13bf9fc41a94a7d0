# The two commands that matter: `make demo` and `make test`. Both set up what they need on a fresh machine.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?= $(HEADRACE_DATA)

PEERS ?= .venv-peers
TOOLS ?= .venv-tools

IMAGE_LOCK := deploy/containers/requirements.lock
CUDA_LOCK := deploy/containers/cuda.lock
BUILD_LOCK := deploy/containers/build.lock

.PHONY: debian jars demo demo-learning demo-teaching docs test test-slow test-s3 lint deploy-tools deploy-check image kubernetes kustomize examples peers bench bench-model bench-accuracy bench-teaching bench-selection bench-cascade bench-growth bench-gpu bench-gateway chaos alerts flood soak lock audit sbom format clean

# Where nothing compiled is kept each process compiles all that it imports, and tests start hundreds.
unexport PYTHONDONTWRITEBYTECODE

# One environment with everything; a change of pyproject.toml renews it. pip would compile on one core, for a minute.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@

demo: $(VENV)/.installed
	$(BIN)/headrace demo

# The learning path on Apache Kafka: needs Java 17 and, the first time, Maven.
demo-learning: $(VENV)/.installed
	$(BIN)/headrace demo --learning

# A teacher labels the stream of a set with few labels; TEACHER=--endpoint asks a local stand-in for a language model.
demo-teaching: $(VENV)/.installed
	$(BIN)/headrace demo --teaching $(TEACHER)

# promtool, of Debian's prometheus, tests the alerts, and Chromium the console. They are installed where root may; without
# one its tests are skipped.
debian:
	(command -v promtool && command -v chromium) >/dev/null || ! command -v apt-get >/dev/null || test "$$(id -u)" != 0 || \
		(apt-get update --quiet=2 && apt-get install --quiet=2 --yes --no-install-recommends prometheus chromium) >/dev/null || true

# Kafka's jars come into Maven's repository meanwhile, from which the first broker takes them; it says what fails.
jars:
	! command -v mvn >/dev/null || mvn --quiet --batch-mode --file services/headrace/kafka/pom.xml \
		dependency:resolve -DincludeScope=runtime >/dev/null || true

# Unit, contract (in-memory, embedded and real Apache Kafka) and end-to-end tests. Three processes, as many of them wait.
# They are not reordered, by default by how many tests a file has: tests/conftest.py puts the long files first.
test:
	@$(MAKE) --no-print-directory --jobs 3 $(VENV)/.installed debian jars
	$(BIN)/python -m pytest -m "not slow" --numprocesses 3 --dist loadfile --no-loadscope-reorder

# What takes long: chaos, thousands of interleavings, every user without a home, upgrades from older workers.
test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The stores' contract on S3 too. Its packages are not in dev: beside the others pip looks through hundreds of boto3.
test-s3: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 's3fs>=2026.9' 'aiobotocore[boto3]>=3.10' 'moto[server]>=5.2'
	$(BIN)/python -m pytest tests/contract/store

# helm, kubeconform and kustomize, built with Go from its module proxy and kept outside of the checkout; minutes at first.
GO_TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/headrace/go-tools
$(GO_TOOLS)/helm: deploy/go-tools/go.sum
	mkdir -p $(GO_TOOLS)
	cd deploy/go-tools && go build -o $(GO_TOOLS)/ tool
	touch $@

deploy-tools: $(GO_TOOLS)/helm

# The manifests for Kustomize, rendered from the chart.
kustomize: $(VENV)/.installed $(GO_TOOLS)/helm
	$(BIN)/python -m deploy.kustomized

# The readers and publishers of examples/, built in the user's cache with Go, Maven and npm, and run on Apache Kafka.
EXAMPLES := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/headrace/examples
examples: $(VENV)/.installed
	cd examples/go && go build -o $(EXAMPLES)/go/headrace-example .
	mvn --batch-mode --quiet --file examples/java/pom.xml -Dheadrace.build=$(EXAMPLES)/java package
	mkdir -p $(EXAMPLES)/typescript
	cp -r examples/typescript/. $(EXAMPLES)/typescript/
	cd $(EXAMPLES)/typescript && npm ci --no-audit --no-fund --silent && npm run --silent build
	$(BIN)/python -m pytest tests/end_to_end/test_examples.py

# The chart against the schemas of three versions of Kubernetes, what its pods and the compose file run, and the
# Containerfile by hadolint. `make test` has the rest of it.
deploy-check: $(VENV)/.installed $(GO_TOOLS)/helm $(TOOLS)/.installed
	$(TOOLS)/bin/hadolint deploy/containers/Containerfile
	$(BIN)/python -m pytest tests/unit/deploy/test_chart.py tests/end_to_end/test_chart_processes.py \
		tests/end_to_end/test_chart_schemas.py tests/end_to_end/test_compose.py

# The images of the Containerfile without an engine, on a base made by debootstrap, and what they answer. As root, on
# Debian 12 with debootstrap and buildah; `make image TARGETS=cpu` leaves out the one that is 20 times as large.
IMAGES := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/headrace/images
TARGETS ?= cpu cuda
image: $(VENV)/.installed
	unshare --mount --propagation private deploy/containers/without_engine.sh $(IMAGES) $(TARGETS)
	HEADRACE_IMAGES=$(IMAGES) $(BIN)/python -m pytest -rs tests/end_to_end/test_image.py

# The chart on Kubernetes' own API server, and workers under KEDA and the autoscaler by real lag on Apache Kafka. etcd,
# Kubernetes and KEDA are built beside the tools above, in a quarter of an hour at first.
KUBERNETES := $(wildcard deploy/go-tools/*/go.sum) deploy/kubernetes_programs.py deploy/kubernetes_schemas.py
$(GO_TOOLS)/keda-adapter: $(KUBERNETES) | $(VENV)/.installed
	$(BIN)/python -m deploy.kubernetes_programs $(GO_TOOLS)
	touch $@

kubernetes: debian $(VENV)/.installed $(GO_TOOLS)/helm $(GO_TOOLS)/keda-adapter
	mkdir -p load-results
	HEADRACE_TRANSCRIPT=$(CURDIR)/load-results/kubernetes.txt \
		$(BIN)/python -m pytest -rs tests/end_to_end/test_chart_api_server.py tests/end_to_end/test_chart_autoscaling.py
	@cat load-results/kubernetes.txt

# The site of the documentation, into site/. Its reference is made from the code.
docs: $(VENV)/.installed
	$(BIN)/python -m mkdocs build --strict

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m headrace_schemas.asyncapi --check
	$(BIN)/python -m headrace.gateway.openapi --check
	$(BIN)/python -m headrace.sight.metrics_reference --check
	$(BIN)/python -m deploy.chart_files --check
	@$(BIN)/python -m deploy.kustomized --check || test $$? = 2  # 2: helm is not here

# What others would write has packages of its own. It sees the first environment as a site, so torch is there once and
# headrace is this checkout.
$(PEERS)/.installed: load/peers/requirements.txt $(VENV)/.installed
	$(PYTHON) -m venv $(PEERS)
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" > \
		"$$($(PEERS)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/headrace.pth"
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement load/peers/requirements.txt
	touch $@

peers: $(PEERS)/.installed

# DATA (or HEADRACE_DATA) is a folder of NAME/*.jsonl (fields text and label); the benches need its ag_news.
.bench/champion.safetensors: $(VENV)/.installed
	$(BIN)/python -m load.peers.artifacts --data $(DATA)/ag_news --out .bench

# headrace beside its peers on real Apache Kafka: drains and latencies, tables, a page and pictures in load-results/.
bench: $(PEERS)/.installed .bench/champion.safetensors
	$(PEERS)/bin/python -m load.peers --model .bench/full.safetensors --champion .bench/champion.safetensors \
		--texts $(DATA)/ag_news/test.jsonl

# The gateway under load, beside FastAPI, on real Apache Kafka; some four minutes, and no data is needed.
bench-gateway: $(PEERS)/.installed
	$(PEERS)/bin/python -m load.gateway --out load-results/gateway

# Model throughput on one thread.
bench-model: $(VENV)/.installed
	$(BIN)/python tests/benchmarks/backends.py $(DATA)/ag_news

# How a drain grows with partitions, lengths, classes, words, batches and formats; it needs no data.
bench-growth: $(VENV)/.installed
	$(BIN)/python -m load.growth --idle --out load-results/growth

# On a machine with a GPU of NVIDIA, five minutes: the cuda backend's integers and times beside eager PyTorch; no data.
bench-gpu: $(VENV)/.installed
	$(BIN)/python -m tests.benchmarks.gpu

# Faults on real Apache Kafka, three seeds each; the table in docs/chaos.md is written anew. Over two hours.
chaos: $(VENV)/.installed
	$(BIN)/python -m load.chaos --out load-results/chaos-$(shell date +%Y%m%d-%H%M%S) --docs docs/chaos.md

# Faults on real Apache Kafka beside a real Prometheus: which alerts fire, with windows of a sixtieth; ten minutes.
alerts: debian $(VENV)/.installed
	$(BIN)/python -m pytest -rs tests/end_to_end/test_alerts_of_faults.py

# A million records of rubbish among a million good ones, through a live worker.
flood: $(VENV)/.installed
	$(BIN)/python -m load.flood --out load-results/flood

# Half an hour at 2,000 requests a second: does memory grow, does latency drift?
soak: $(VENV)/.installed
	$(BIN)/python -m load.made .bench/soak/model.safetensors
	cd .bench/soak && $(abspath $(BIN))/headrace-load soak $(CURDIR)/load/workloads/steady.toml \
		--contender $(CURDIR)/load/contenders/two-workers.toml --broker apache --out $(CURDIR)/load-results/soak

# The baselines of both: they are no part of dev, as fastText's wheel is built for few systems.
BASELINES := $(BIN)/python -m pip install --quiet --disable-pip-version-check 'scikit-learn>=1.5' 'fasttext-wheel>=0.9.2'

bench-accuracy: $(VENV)/.installed
	$(BASELINES)
	$(BIN)/python -m tests.benchmarks.accuracy $(DATA)

# From few labels: headrace alone, its teacher, headrace taught, and the baselines. Hours; see --help for less.
bench-teaching: $(VENV)/.installed
	$(BASELINES)
	$(BIN)/python -m tests.benchmarks.teaching $(DATA)

# How many labels an accuracy takes, by the least margin and by chance; docs/images/selection.png is drawn anew.
bench-selection: $(VENV)/.installed
	$(BIN)/python -m tests.benchmarks.selection $(DATA)

# The certified cascade on banking77 and clinc150: coverage, and how often the bound is broken.
bench-cascade: $(VENV)/.installed
	$(BIN)/python tests/benchmarks/cascade.py $(DATA)

# What makes and checks a release has an environment of its own.
$(TOOLS)/.installed: deploy/tools.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement deploy/tools.txt
	touch $@

# The newest set that pyproject.toml allows, for the image's Python and system: what the image installs, and what makes
# headrace's wheel for it.
LOCKED := $(TOOLS)/bin/uv pip compile --quiet --upgrade --generate-hashes --python-version 3.11 --python-platform linux \
	--custom-compile-command 'make lock'
lock: $(TOOLS)/.installed
	$(LOCKED) --extra worker --extra s3 --extra gateway --extra tracing --output-file $(IMAGE_LOCK) pyproject.toml
	$(LOCKED) --extra worker --extra s3 --extra gateway --extra tracing --extra cuda --extra train --extra teach \
		--output-file $(CUDA_LOCK) pyproject.toml
	$(PYTHON) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires'], sep='\n')" | \
		$(LOCKED) --output-file $(BUILD_LOCK) -

# Known vulnerabilities of the images' packages: error 1 when there is one, error 3 when it could not look.
audit: $(TOOLS)/.installed
	$(TOOLS)/bin/python deploy/containers/audit.py $(IMAGE_LOCK)
	$(TOOLS)/bin/python deploy/containers/audit.py $(CUDA_LOCK)

# What the image holds, headrace included, as CycloneDX.
sbom: $(TOOLS)/.installed
	mkdir -p dist
	$(TOOLS)/bin/cyclonedx-py requirements --pyproject pyproject.toml --mc-type application --output-reproducible \
		--output-file dist/headrace.cdx.json $(IMAGE_LOCK)
	$(TOOLS)/bin/cyclonedx-py requirements --pyproject pyproject.toml --mc-type application --output-reproducible \
		--output-file dist/headrace-cuda.cdx.json $(CUDA_LOCK)

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf $(VENV) $(PEERS) $(TOOLS) .bench build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
