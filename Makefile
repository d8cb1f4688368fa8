# Every target first sets up what is missing (scripts/setup): .venv, and on Debian and Ubuntu, as root, system packages.
PYTHON ?= python3
ARGS ?=
export PYTHON
export PATH := $(PATH):/usr/sbin:/sbin

python := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup setup-tests demo demo-overlay test lint bench clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1 /p' Makefile | while read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

setup: ## set up what is missing to use it, and nothing else
	@scripts/setup

setup-tests: ## set up what is missing to test it, too
	@scripts/setup tests

demo: setup ## see it work (root)
	$(python) -u examples/demo.py

demo-overlay: setup-tests ## see a network span three hosts, with Open vSwitch and etcd (root)
	$(python) -u examples/overlay_three_hosts.py

test: setup-tests ## run all tests, examples and linters (root, or those that need it are skipped; ARGS='-k ipam')
	$(python) -m pytest -n auto --dist worksteal $(ARGS)

lint: setup ## check style and types
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy

bench: setup-tests ## measure, beside a C program that does the same work (root)
	$(python) -m benchmarks.wire --scale 1000 --threads 8 --import --memory $(ARGS)
	$(python) -m benchmarks.publish
	$(python) -m benchmarks.ipam
	$(python) -m benchmarks.store
	$(python) -m benchmarks.dns
	$(python) -m benchmarks.overlay
	$(python) -m benchmarks.processes
	$(python) -m benchmarks.etcd
	$(python) -m benchmarks.thousand_hosts
	$(python) -m benchmarks.ovs_flows

clean: ## remove .venv, caches and what was built
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
