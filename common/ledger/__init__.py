"""The ledger: signed statements in a Merkle tree; its maths, and what its entries add up to."""
