#!/usr/bin/env bash
# Kills training at random moments with SIGKILL, resumes it each time, and asks
# for the bytes of a run that nobody disturbed.
#
#   trainer/kill.sh [kills]      (default 100)
set -eu
cd "$(dirname "$0")/.."
kills=${1:-100}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
CGO_ENABLED=0 go build -o "$work/train" ./cmd/train

job=(-config configs/llama-lora.yaml -set train.save_every=3 -set train.epochs=6 -set profile=false -set lora.dropout=0.1)
"$work/train" "${job[@]}" -out "$work/calm" > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
want=$(sha256sum < "$work/calm/adapter/adapter_model.safetensors")

RANDOM=20261123
done=0 runs=0 attempts=0
while [ "$done" -lt "$kills" ]; do
  rm -rf "$work/killed"
  while :; do
    attempts=$((attempts + 1))
    "$work/train" "${job[@]}" -out "$work/killed" -resume > "$work/log" 2>&1 &
    pid=$!
    if [ "$done" -lt "$kills" ]; then
      sleep "0.$(printf %03d $((RANDOM % 350 + 20)))"
      kill -9 "$pid" 2> /dev/null || true
    fi
    code=0
    wait "$pid" 2> /dev/null || code=$?
    case $code in
      0) break ;;
      137) done=$((done + 1)) ;;
      *) echo "attempt $attempts ended with exit code $code:"; cat "$work/log"; exit 1 ;;
    esac
  done
  runs=$((runs + 1))
  got=$(sha256sum < "$work/killed/adapter/adapter_model.safetensors")
  if [ "$got" != "$want" ]; then
    echo "run $runs: the final adapter differs after kills: $got, want $want"
    exit 1
  fi
done
echo "$done kills in $runs runs: every final adapter has the bytes of the undisturbed run"
