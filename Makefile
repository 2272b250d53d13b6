# `make reproduce` and `make test` do all the setup they need. The other targets are for convenience.

PIPELINE ?= pipelines/tiny.ron
CARGO ?= cargo
CACO := target/release/caco

.PHONY: reproduce test check build libtorch prerequisites clean-cache help
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

reproduce: build ## run pipelines/tiny.ron and print its table (PIPELINE=… for another)
	@$(CACO) run $(PIPELINE) $(ARGS)

test: libtorch ## run all tests
	@scripts/test.sh

build: libtorch ## build caco, fetching libtorch if necessary
	@$(CARGO) build --release --quiet --bins

# If LIBTORCH or LIBTORCH_USE_PYTORCH is set, nothing is fetched.
libtorch: prerequisites ## fetch libtorch 2.11 from PyPI into ./libtorch
	@if [ -z "$$LIBTORCH" ] && [ -z "$$LIBTORCH_USE_PYTORCH" ]; then scripts/libtorch.sh; fi

prerequisites: ## check for the tools that no package registry provides
	@scripts/prerequisites.sh

check: libtorch ## run the fast checks: formatting, lints, tests without tensors
	@$(CARGO) fmt --check
	@rustfmt --check --edition 2024 src/views/operation/*.rs
	@$(CARGO) clippy --release --workspace --all-targets --quiet -- -D warnings
	@$(CARGO) test --release --quiet --workspace --lib --bins --exclude caco-learn --exclude caco-worker --exclude caco-numeric

clean-cache: ## remove every result
	rm -rf cache/objects cache/results cache/work cache/lock cache/locks cache/uses cache/trees cache/hosts cache/names cache/runs cache/listings cache/quarantine cache/collected cache/divergences cache/verdicts cache/VERSION cache/last.json
