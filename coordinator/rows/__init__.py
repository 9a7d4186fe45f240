"""The coordinator's tables, row by row, against the ledger's projection (coordinator.tables says which check is whose).

reading.py     rows as a hand may have left them
ledger.py      ledger, schema
log.py         tiles, checkpoints, and the file log.head beside the database
rounds.py      seals, metrics
members.py     invitations, certificates
drafts.py      proposals, approvals
"""
