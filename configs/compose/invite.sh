#!/bin/sh
# One invitation for each institution, in a volume that it shares with nobody else. Who was invited before is not invited again.
# INVITATIONS: NAME=FOLDER for each institution.
set -eu
umask 077
for each in $INVITATIONS; do
  name=${each%%=*} file=${each#*=}/invitation
  if [ -e "$file" ]; then
    echo "$name was invited before" >&2
    continue
  fi
  llmasos-coordinator institution invite "$name" --expires 48h > "$file.part"
  mv "$file.part" "$file"
done
