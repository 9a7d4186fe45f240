"""What all sides agree on: statements, identity, blobs, ledger maths, codecs, the exact reducer, the wire.

Nothing here trains, serves or stores a run; nothing here imports torch. Both daemons and every verifier use this very code.
"""
