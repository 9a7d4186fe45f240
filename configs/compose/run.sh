#!/bin/sh
# One run from the prepared plan to the exported model. Called again after an interruption it goes on with the same run.
set -eu
if [ -e "$RESULTS/model.safetensors" ]; then
  echo "finished before: $RESULTS/model.safetensors" >&2
  exit 0
fi
if [ ! -e "$RESULTS/run" ]; then
  llmasos-coordinator run start "$PREPARED" --format quiet > "$RESULTS/run.part"
  mv "$RESULTS/run.part" "$RESULTS/run"
fi
run=$(cat "$RESULTS/run")
llmasos-coordinator run watch "$run"
llmasos-coordinator run export "$run" --out "$RESULTS/model.safetensors"
