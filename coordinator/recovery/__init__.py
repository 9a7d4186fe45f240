"""A coordinator that lost something: backups, what institutions hold of its ledger, and a new lineage where nobody holds it."""
