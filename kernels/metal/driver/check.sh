#!/usr/bin/env bash
# On a Mac: all that only it can tell, in one report for people to send.
#
#   kernels/metal/driver/check.sh [flags of train bench]
#
# The tests of the driver, among them the conformance suite on the real GPU; all
# cases of train doctor; the times of every kernel, and of the CPU's products with
# Accelerate and without. The report is build/mac-check.txt. Elsewhere GRAFT_METAL_EMULATOR stands in for the GPU.
set -u
cd "$(dirname "$0")/../../.."
report=build/mac-check.txt
mkdir -p build
failed=

part() { # title, command
  local title=$1
  shift
  echo "== $title"
  "$@" 2>&1 || failed="$failed; $title"
  echo
}

{
  date -u +%Y-%m-%dT%H:%M:%SZ
  git log -1 --format='graft %h, %ci' 2> /dev/null || echo "graft, no git"
  sw_vers 2> /dev/null || uname -a
  echo
  go build -o build/train ./cmd/train 2>&1 || exit 1
  part "the driver, on the GPU" go test -count=1 -timeout 60m -v ./kernels/metal/driver
  part "every case on every device" build/train doctor -all
  part "times" build/train bench -backend metal "$@"
  part "Accelerate" go test -count=1 -v ./kernels/cpu/accelerate
  cpu=(bench -backend cpu -only "product|weight_grad|cross_entropy")
  part "times of the CPU" build/train "${cpu[@]}" "$@"
  CGO_ENABLED=0 part "times of the CPU, without cgo" go run ./cmd/train "${cpu[@]}" "$@"
  [ -z "$failed" ] && echo "all is well" || { echo "FAILED${failed}"; exit 1; }
} | tee "$report"
code=${PIPESTATUS[0]}
echo "report: $report"
exit "$code"
