# Everything that is done to Wherry, from building it to moving an instance. "make" lists it.

SHELL := /bin/bash
# A test whose output goes through a pipe fails all the same.
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

GO := GOTOOLCHAIN=local go
VERSION := $(shell git describe --tags --always --dirty --match 'v[0-9]*' 2>/dev/null || echo development)
LDFLAGS := -X github.com/wherry-kvm/wherry/agent/cli.version=$(VERSION)

GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := bin/golangci-lint-$(GOLANGCI_LINT_VERSION)

FUZZTIME := 30s

say = @printf '\n== %s\n' '$(1)'

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## install what a fresh Debian 12 with Go lacks (needs root only where something is missing)
	$(call say,dependencies)
	tests/install-deps

.PHONY: build
build: ## build bin/wherry
	$(call say,build $(VERSION))
	CGO_ENABLED=1 $(GO) build -buildvcs=false -trimpath -ldflags '$(LDFLAGS)' -o bin/wherry .

.PHONY: package
package: build ## make the Debian package, in dist/
	$(call say,package)
	configs/package

.PHONY: demo
demo: deps package ## move an instance between two hosts and back, from nothing
	$(call say,demo)
	tests/demo

.PHONY: test
test: deps package unit vagrant e2e ## run all tests: unit, then end to end on two hosts (needs root)
	$(call say,all tests have passed)
	@grep -h '^ok' .test/unit.log .test/e2e.log

.PHONY: unit
unit: ## run the tests that need neither root nor libvirt daemons
	$(call say,unit tests)
	CGO_ENABLED=1 $(GO) vet ./...
	@mkdir -p .test
	CGO_ENABLED=1 $(GO) test ./... | tee .test/unit.log

.PHONY: e2e
e2e: ## run the end-to-end tests, on labs of their own (needs root)
	$(call say,end-to-end tests on two hosts)
	tests/run-e2e

.PHONY: vagrant
vagrant: ## check the Vagrantfile
	$(call say,Vagrantfile)
	vagrant validate

.PHONY: lint
lint: $(GOLANGCI_LINT) ## check the code's style and its borders
	$(call say,lint)
	$(GOLANGCI_LINT) run ./...
	$(GOLANGCI_LINT) run --build-tags lab ./tests/...

$(GOLANGCI_LINT):
	$(call say,install golangci-lint $(GOLANGCI_LINT_VERSION))
	GOBIN=$(CURDIR)/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv bin/golangci-lint $@

.PHONY: fuzz
fuzz: ## run every fuzz test for FUZZTIME (30s)
	@set -e; for package in $$($(GO) list ./...); do \
		for fuzz in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			printf '\n== %s %s\n' "$$package" "$$fuzz"; \
			$(GO) test -run '^$$' -fuzz "^$$fuzz\$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

.PHONY: bench
bench: deps package ## compare migrations with virsh, downloads with curl, syncs with the link, stops with one
	$(call say,bench)
	export WHERRY_LAB_DIR=$(CURDIR)/.lab-bench; trap 'tests/lab/lab down; rm -rf "$$WHERRY_LAB_DIR"' EXIT; $(GO) run ./tests/bench $(BENCH)

SEEDS ?= 200
BASE ?= 1
LABS ?= 1

.PHONY: chaos
chaos: deps package ## break what can break while instances move, SEEDS times from BASE on, on LABS labs; SEED=17 is one alone
	$(call say,chaos)
	export WHERRY_LAB_DIR=$${WHERRY_LAB_DIR:-$(CURDIR)/.lab-chaos}; $(GO) run ./tests/chaos -base $(BASE) -seeds $(SEEDS) -labs $(LABS) $(if $(SEED),-seed $(SEED))

.PHONY: lab-up
lab-up: deps package ## bring up the two hosts of the lab (needs root)
	$(call say,lab up)
	tests/lab/lab up

.PHONY: lab-down
lab-down: ## take the lab away
	$(call say,lab down)
	tests/lab/lab down

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist .test
