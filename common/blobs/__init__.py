"""Blobs: the data plane's content, named by Merkle root and verified chunk by chunk."""
