"""Aggregation rules, one module each: from what is known of whole deltas to an average, or to numbers side by side."""
