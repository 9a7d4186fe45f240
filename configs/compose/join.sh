#!/bin/sh
# An institution's home folder, once. LLMASOS_HOME, INVITATION and TEXT come from docker-compose.yml.
set -eu
if [ -e "$LLMASOS_HOME/participant.yaml" ]; then
  echo "joined before" >&2
  exit 0
fi
# A person would read the policy and decide about each plan; this federation has nobody to ask.
exec llmasos-participant join "$INVITATION" --data "$TEXT" --answer accept
