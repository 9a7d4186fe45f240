"""A verifier written from docs/protocol.md alone, and whether it agrees with ours."""
