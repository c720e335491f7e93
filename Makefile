# Commands for users and developers: make help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help bootstrap demo down token check test test-unit test-policy test-integration test-security test-busy test-conformance test-deploy test-backup bench bench-pods bench-site generate lock

export PATH := $(CURDIR)/.venv/bin:$(PATH)
ROLES ?= mcp:viewer
TENANT ?= default

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

bootstrap: ## Install the requirements of this machine: packages, .venv, OPA
	@scripts/bootstrap

demo: ## Start the lab, install everything on it, verify it, print how to call it
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
	@python scripts/suites check integration conformance one-host cluster

test-unit: ## Unit tests only
	@scripts/bootstrap --tests
	@python scripts/suites unit

test-policy: ## Policies only: format, types, data, tests with coverage
	@scripts/bootstrap
	@python scripts/suites policy

test-integration: ## The server with real PostgreSQL, Redis, OPA and Prometheus, and the playbooks, on this machine
	@scripts/bootstrap --tests
	@python scripts/suites integration

test-security: ## 500 attacks through the real Nginx (part of test-integration)
	@scripts/bootstrap --tests
	@python scripts/suites security

test-busy: ## Integration tests on a machine without a free processor
	@scripts/bootstrap --busy
	@stress-ng --cpu 4 --quiet & trap "kill $$!" EXIT; python scripts/suites integration

test-conformance: ## The protocol's conformance suite against the server, both revisions (docs/conformance.md)
	@scripts/bootstrap --tests
	@python scripts/suites conformance

test-deploy: ## The playbooks on containers: one host, then the complete topology
	@scripts/bootstrap
	@python scripts/suites one-host cluster

test-backup: ## Backup and restore on containers: the database host is destroyed (15 minutes, not part of make test)
	@scripts/bootstrap --tests
	@python scripts/suites data

bench: ## Calls per second and latency, compared with the bare SDK; the largest topology (docs/performance.md)
	@scripts/bootstrap --tests
	@python -m tests.bench.first
	@python -m tests.bench.topology

bench-pods: ## The first page of 5,000 pods, compared with lists of the API server (docs/performance.md)
	@scripts/bootstrap --tests
	@python -m tests.bench.pods

bench-site: ## Time of a site.yml run that changes nothing on the lab, and its modules (docs/performance.md)
	@scripts/bootstrap
	@python -m tests.bench.site

generate: ## Write every generated file: policy catalogue, docs/tools.md, README.md of each role, Kubernetes manifests
	@scripts/bootstrap --tests
	@scripts/generate

lock: ## Resolve requirements/*.in into the lock files
	@scripts/lock
