"""Verification: what anyone can find out about a run from statements and blobs alone (docs/protocol.md#verify).

material.py   what there is to verify: envelopes, blobs, what the reader pinned or signed
history.py    every statement signed by a key that the roster of its leaf allowed, and following from the ones before
changes.py    who was a witness when, and which times are signed, recorded while the history is read
checkpoints.py  what the log signed is this one history, and a majority of witnesses saw each round begin
times.py      no time is one that the signed times around it rule out
own.py        one's own contributions: in, unaltered, weighted as signed
blobs.py      the models and deltas that are held are the bytes that the ledger names
rounds.py     every committed round recomputed bit for bit with the very reducer that the coordinator runs
lineage.py    the final model descends from these rounds
report.py     verified, verified with gaps, or failed; and what is not proven
verify.py     all of it, in that order
"""
