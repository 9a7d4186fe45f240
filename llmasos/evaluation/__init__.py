"""Measuring models on held-out text, in sums that institutions can add up exactly."""
