# Everything a user or developer does begins here: make help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help bootstrap demo down token check test test-unit test-policy test-integration test-busy test-conformance test-deploy bench bench-pods bench-site generate lock

export PATH := $(CURDIR)/.venv/bin:$(PATH)
ROLES ?= mcp:viewer
TENANT ?= default

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

bootstrap: ## Install what this machine needs: packages, .venv, OPA
	@scripts/bootstrap

demo: ## Make the lab, install everything on it, verify, tell how to call it
	@scripts/demo

down: ## Remove the lab and its state
	@scripts/demo --down

token: ## Print a token: make -s token USER=alice ROLES=mcp:viewer[,mcp:operator] [TENANT=default]
	@scripts/token '$(USER)' '$(ROLES)' '$(TENANT)'

check: ## Linters, policy tests and unit tests: run it before each commit
	@scripts/bootstrap --tests
	@python scripts/suites check

test: ## Everything: check, integration, conformance, deployment in containers
	@scripts/bootstrap --tests
	@python scripts/suites check integration conformance deploy

test-unit: ## Unit tests only
	@scripts/bootstrap
	@python scripts/suites unit

test-policy: ## Policies only: format, types, data, tests with coverage
	@scripts/bootstrap
	@python scripts/suites policy

test-integration: ## The server with real PostgreSQL, Redis, OPA and Prometheus on this machine
	@scripts/bootstrap --tests
	@python scripts/suites integration

test-busy: ## The same while four processes take the processors: no test may need a quick machine
	@scripts/bootstrap --busy
	@stress-ng --cpu 4 --quiet & trap "kill $$!" EXIT; python scripts/suites integration

test-conformance: ## The protocol's conformance suite against the whole server, both revisions (docs/conformance.md)
	@scripts/bootstrap --tests
	@python scripts/suites conformance

test-deploy: ## The playbooks on containers: one host, then the whole topology
	@scripts/bootstrap
	@python scripts/suites deploy

bench: ## Calls a second and latency beside the bare SDK, and the largest topology (docs/performance.md)
	@scripts/bootstrap --tests
	@python -m tests.bench.first
	@python -m tests.bench.topology

bench-pods: ## The first page of 5,000 pods beside the API server's own lists (docs/performance.md)
	@scripts/bootstrap --tests
	@python -m tests.bench.pods

bench-site: ## Time site.yml on the lab where it changes nothing, and count its modules (docs/performance.md)
	@scripts/bootstrap
	@python -m tests.bench.site

generate: ## Write every generated file: the policies' catalogue, docs/tools.md, README.md of each role
	@scripts/bootstrap
	@scripts/generate

lock: ## Resolve requirements/*.in anew into the lock files
	@scripts/lock
