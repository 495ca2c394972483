# R2: `make help` lists the targets.
GO ?= go
FUZZTIME ?= 10s

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/' | expand -t 16

build: ## a static bin/r2
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags="-s -w" -o bin/r2 ./cmd/r2

build-gpu: ## bin/r2 with NVIDIA GPUs; it finds libcuda when it runs, and is not static
	CGO_ENABLED=0 $(GO) build -tags gpu -trimpath -ldflags="-s -w" -o bin/r2 ./cmd/r2

test: ## all tests, with the invariants of pool and scheduler checked
	R2_VERIFY=1 $(GO) test ./...

race: ## the concurrent packages under the race detector
	R2_VERIFY=1 $(GO) test -race ./engine/ ./engine/kvcache/ ./engine/sample/ ./engine/serve/ ./engine/runner/ ./router/... ./train/...

soak: ## kill sft, grpo and a router's modules in training a hundred times each, and compare every byte; two minutes of the service under load
	R2_KILLS=100 $(GO) test -count 1 -v -timeout 1h -run TestKilled ./cmd/r2/
	R2_SOAK=2m $(GO) test -count 1 -v -timeout 1h -run TestSoak ./engine/serve/

grid: ## SmolLM2's answers alone and among up to 255 others, cached, in chunks, preempted: 0 differing bits
	R2_GRID=256 $(GO) test -count 1 -v -timeout 2h -run TestGridSmolLM2 ./engine/runner/

fuzz: ## every fuzz target for FUZZTIME (10s)
	GO="$(GO)" FUZZTIME="$(FUZZTIME)" bash .ci/fuzz

bench: ## Go benchmarks, readable by benchstat
	$(GO) test -run '^$$' -bench . -benchtime 200ms ./bench/ ./kernels/cpu/ ./tokenizer/

BASE ?= main
bench-compare: ## benchmarks of this tree beside those of BASE (main), in turn, by benchstat
	GO="$(GO)" bash bench/compare.sh $(BASE)

vet: ## gofmt, vet and staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "gofmt would change the files above" >&2; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

NVRTC = .cache/nvrtc/nvidia/cuda_nvrtc/lib/libnvrtc.so.12

nvrtc: $(NVRTC) ## fetch the compiler of the GPU kernels: 25 MB, no GPU needed
$(NVRTC):
	python3 -m pip download -q --no-deps -d .cache/nvrtc nvidia-cuda-nvrtc-cu12==12.4.127
	python3 -m zipfile -e .cache/nvrtc/nvidia_cuda_nvrtc_cu12-12.4.127-*.whl .cache/nvrtc

ptx: $(NVRTC) ## compile the GPU kernels to the PTX that is committed, and say what they take
	$(GO) run ./kernels/cuda/ptx/gen -dir kernels/cuda/ptx -report

ptx-check: $(NVRTC) ## fail when the committed PTX is stale, a kernel spills, or its machine code lacks what its PTX has
	$(GO) run ./kernels/cuda/ptx/gen -dir kernels/cuda/ptx -check

predicted: ## bench/predicted.md: what the GPU kernels' own counts say of a 7B model on an H100 (ten minutes of a core)
	$(GO) run ./bench/gpu -device ptxsim predict bench

SMOLLM2 = ../shared/models/smollm2-135m-instruct

peers: build ## compare with TensorBoard, PEFT, transformers and TRL, which are fetched (6 GB): event files, adapters, merged weights, losses
	python3 bench/peers/tensorboard_read.py
	python3 bench/peers/peft_load.py --model $(SMOLLM2)
	python3 bench/peers/trl_sft.py
	python3 bench/peers/trl_sft.py --model $(SMOLLM2) --data ../shared/data/gsm8k/train.jsonl

headers: ## fetch CUDA's headers, for the second driver alone: 1 MB (kernels/cuda/driver/gorgonia)
	python3 -m pip download -q --no-deps -d .cache/cudart nvidia-cuda-runtime-cu12==12.4.127
	python3 -m zipfile -e .cache/cudart/nvidia_cuda_runtime_cu12-12.4.127-*.whl .cache/cudart

GPU = out/gpu
gpu: ## out/gpu: a script that proves and measures r2 on a machine with a GPU and no Go, and what it runs
	mkdir -p $(GPU)/bin
	CGO_ENABLED=0 $(GO) build -tags gpu -trimpath -ldflags="-s -w" -o $(GPU)/bin/ ./cmd/r2 ./bench/gpu
	for p in driver .; do CGO_ENABLED=0 $(GO) test -c -trimpath -ldflags="-s -w" -o $(GPU)/bin/$$(basename $$(cd kernels/cuda/$$p && pwd)).test ./kernels/cuda/$$p || exit 1; done
	tar -czf $(GPU)/bin.tar.gz -C $(GPU)/bin . && rm -r $(GPU)/bin
	cp bench/gpu/gpu.sh bench/gpu/peer.py $(GPU)/
	@du -ch $(GPU)/bin.tar.gz | tail -1

openai-client: ## the openai package for Python, for the test that uses it
	python3 -m venv .cache/openai
	.cache/openai/bin/pip install -q openai

miniature: build ## train the models that r2 demo ships, from SCAN (about 15 minutes on two cores)
	bash bench/miniature/recipe.sh

ci: ## what .ci/run runs
	bash .ci/run

.PHONY: help build build-gpu gpu headers test race soak grid fuzz bench bench-compare vet nvrtc ptx ptx-check predicted peers miniature ci
