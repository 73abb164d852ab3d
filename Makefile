# What there is to do here; the README has the two commands that matter.

# A Mac's GPU and Accelerate are called through cgo; everything else needs none.
ifneq ($(shell uname -s),Darwin)
export CGO_ENABLED = 0
endif

.PHONY: build test race lint bench peers demo kill generate mac-check

build: ## the program, as one binary
	go build -o build/train ./cmd/train

test:
	go test ./...

race: ## what is concurrent, under the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -race -short ./data ./tokenizer ./checkpoints ./kernels/cpu ./model ./trainer

lint:
	test -z "$$(gofmt -l .)"
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

bench: ## FLOPs and bytes of the kernels, against the machine's limits
	go run ./cmd/train bench
	go test -run '^$$' -bench . ./kernels/cpu ./tokenizer ./data ./configs

peers: ## graft beside PyTorch + PEFT and mlx-lm, in one run (needs Python)
	python3 bench/peers.py

demo:
	go run ./cmd/train -config configs/llama-lora.yaml

kill: ## SIGKILL at random moments, resume, compare bytes
	trainer/kill.sh

generate: ## the assembly and the Metal kernels' parameters, from their generators
	go generate ./kernels/cpu ./kernels/metal

mac-check: ## on a Mac: what only it can tell, in one report to send
	kernels/metal/driver/check.sh
