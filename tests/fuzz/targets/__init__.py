"""One module a target; its `TARGET` is what tests/fuzz/harness.py loads by the module's name."""
