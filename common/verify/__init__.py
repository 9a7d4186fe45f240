"""Verification: what anyone can find out about a run from statements and blobs alone (docs/protocol.md#verify).

material.py   what there is to verify: envelopes, blobs, what the reader pinned or signed
history.py    every statement signed by a key that the roster of its leaf allowed, and following from the ones before
own.py        one's own contributions: in, unaltered, weighted as signed
rounds.py     every committed round recomputed bit for bit with the very reducer that the coordinator runs
lineage.py    the final model descends from these rounds
report.py     verified, verified with gaps, or failed; and what is not proven
verify.py     all of it, in that order
"""
