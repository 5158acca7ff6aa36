# SPDX-License-Identifier: Apache-2.0
# The front door. Every target does its own set-up; `make` alone says what there is.

CARGO := cargo --locked
SERVICES := --manifest-path rust-services/Cargo.toml

.DEFAULT_GOAL := help

help: ## this list
	@echo "agl-virtio: VIRTIO device services for Automotive Grade Linux"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r target text; do \
		printf '  make %-10s %s\n' "$$target" "$$text"; done

setup: ## packages of this host (Debian 12, root), once
	@tests/host-packages

build: setup ## the services, optimised: rust-services/target/release
	$(CARGO) build $(SERVICES) --release --workspace

demo: build ## a Linux guest with all our devices: it plays, records, decodes, takes pictures
	@tests/bench/setup
	@tests/demo/run

test: lint unit guest ## everything CI runs

lint: setup ## formatting, clippy, documentation, shell and Python
	@tests/lint

unit: setup ## tests of the services, hostile guests included; no VM
	@tests/unit

guest: build ## tests in a real guest under QEMU
	@tests/bench/setup
	@tests/bench/run

oeqa: build ## the oeqa cases in the guest over ssh; by OE-core's oe-test with OECORE=…
	@tests/bench/setup
	@tests/bench/check-oeqa

bench: build ## figures beside the peer, to docs/performance.md
	@tests/bench/setup
	@tests/performance/run

fuzz: setup ## each queue's fuzz target for a bounded time (FUZZ_SECONDS, default 60)
	@tests/fuzz/run

licences: setup ## licences and sources of all crates, by cargo-deny
	@tests/licences

clean: ## what the build made; the cache outside the checkout stays
	$(CARGO) clean $(SERVICES)
	rm -rf build

.PHONY: help setup build demo test lint unit guest oeqa bench fuzz licences clean
