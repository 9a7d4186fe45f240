#!/bin/sh
# Initial weights and tokenizer of the plan, once.
set -eu
if [ -e "$PREPARED/draft.json" ]; then
  echo "prepared before" >&2
  exit 0
fi
exec llmasos plan prepare "$PLAN" --out "$PREPARED"
