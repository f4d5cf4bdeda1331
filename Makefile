# The commands of Keelson. `make up` and `make test` are all that a newcomer needs.

# `make up PROFILE=dev` builds faster and runs slower.
PROFILE ?= release
NODES ?= 2
STORE ?= embedded
OUT := target/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
BINARIES := apiserver controller-manager scheduler kubelet proxy dns kubectl deploy
PROGRAMS := pause serve-hostname

.PHONY: up down build images sample test unit e2e bench fmt lint packages help

help:
	@echo "make up      build, start a cluster of $(NODES) nodes, apply the samples   (STORE=etcd, NODES=3, PROFILE=dev)"
	@echo "make down    remove every trace of it"
	@echo "make test    every test: unit, contract, golden, in-process, end to end with real containers"
	@echo "make bench   the performance table"
	@echo "make fmt lint"

packages:
	@deploy/install-packages build node $(if $(filter etcd,$(STORE)),etcd)

build: packages images
	cargo build --locked --profile $(PROFILE) $(BINARIES:%=-p %)

# What runs inside containers is linked statically; a target folder of its own keeps the rest from being
# built again for another kind of linking.
images: packages
	@for program in $(PROGRAMS); do \
	    cargo rustc --locked --profile $(PROFILE) -p images --bin $$program --target-dir target/static \
	        -- -C target-feature=+crt-static || exit 1; \
	done
	@mkdir -p $(OUT)/images
	@for program in $(PROGRAMS); do \
	    cmp -s $(OUT:target/%=target/static/%)/$$program $(OUT)/images/$$program \
	        || cp $(OUT:target/%=target/static/%)/$$program $(OUT)/images/$$program || exit 1; \
	done

up: build
	$(OUT)/keelson up --nodes $(NODES) --store $(STORE)
	@$(MAKE) --no-print-directory sample

sample:
	$(OUT)/kubectl --context keelson apply -f deploy/samples
	$(OUT)/kubectl --context keelson rollout status deployment/sample-deployment-nginx deployment/hostnames --timeout 120s
	$(OUT)/kubectl --context keelson wait --for condition=Ready pod/hello-pod pod/sample-java --timeout 120s
	$(OUT)/kubectl --context keelson get nodes,pods,services -o wide
	@echo
	@echo "Reach it:  export PATH=$(CURDIR)/$(OUT):\$$PATH; kubectl get pods"
	@echo "           curl http://$$($(OUT)/kubectl --context keelson get service hostnames -o jsonpath='{.spec.clusterIP}')"
	@echo "End it:    make down"

down:
	@if [ -x $(OUT)/keelson ]; then $(OUT)/keelson down; else $(MAKE) --no-print-directory build && $(OUT)/keelson down; fi

test:
	@e2e/test-all

bench: build
	@deploy/install-packages etcd
	cargo bench --locked -p e2e --bench table

fmt:
	cargo fmt --all

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
