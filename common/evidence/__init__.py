"""Evidence: a ledger, or a part of it, as one canonical file that anyone verifies without anything else.

select.py    what goes in: whole runs, own metrics, deltas that one may take out
notes.py     which notes go in: of this history, or against it
format.py    the records and their one spelling; writing
source.py    the file's bytes, bounded before each read
read.py      reading strictly: what is read encodes to the very same bytes
bundle.py    what was read: envelopes, tree, notes, blobs, all in place in the file
subtrees.py  what stands for withheld entries
checks.py    what verification asks of a bundle besides what it asks of any ledger
files.py     the file on disk: whole or absent, private, never over another one
output.py    the commands that export, for both daemons

Bytes stream: memory is a few chunks and 50 bytes an entry, whatever deltas the file holds (docs/protocol.md#evidence).
"""
