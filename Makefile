# Two commands: `make reproduce` and `make test`. Each does all the set-up it needs; the rest is for convenience.

PIPELINE ?= pipelines/tiny.ron
CARGO ?= cargo
CACO := target/release/caco

.PHONY: reproduce test build libtorch prerequisites lint clean-cache help
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

reproduce: build ## run the embedded pipeline and print its table (PIPELINE=… for another)
	@$(CACO) run $(PIPELINE) $(ARGS)

test: build ## run all tests
	@scripts/test.sh

build: libtorch ## fetch libtorch if need be, and build caco
	@$(CARGO) build --release --quiet --bins

# An existing LIBTORCH or LIBTORCH_USE_PYTORCH is respected: nothing is fetched then.
libtorch: prerequisites ## fetch libtorch 2.11 from PyPI into ./libtorch
	@if [ -z "$$LIBTORCH" ] && [ -z "$$LIBTORCH_USE_PYTORCH" ]; then scripts/libtorch.sh; fi

prerequisites: ## is everything there that no package registry can give?
	@scripts/prerequisites.sh

lint: libtorch ## what CI holds: formatting and clippy
	$(CARGO) fmt --check
	$(CARGO) clippy --release --all-targets -- -D warnings
	$(CARGO) clippy --release --all-targets --no-default-features -- -D warnings
	$(CARGO) clippy --release --lib --no-default-features --features data -- -D warnings

clean-cache: ## remove every result
	rm -rf cache/objects cache/results cache/work cache/lock cache/locks cache/uses cache/trees cache/hosts cache/names cache/runs cache/listings cache/quarantine cache/collected cache/divergences cache/verdicts cache/VERSION cache/last.json
