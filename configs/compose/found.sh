#!/bin/sh
# The coordinator's home folder, once. LLMASOS_HOME, CONSORTIUM, WORK_ADDRESS and ENROLMENT_ADDRESS come from docker-compose.yml.
set -eu
if [ -e "$LLMASOS_HOME/coordinator.yaml" ]; then
  echo "a consortium was founded before" >&2
  exit 0
fi
exec llmasos-coordinator init --consortium "$CONSORTIUM" \
  --work-address "$WORK_ADDRESS" --enrolment-address "$ENROLMENT_ADDRESS"
