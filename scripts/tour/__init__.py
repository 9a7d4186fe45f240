"""docs/tour.md's generated part: a federation that really ran (recording), told in steps (before, work, outcome)."""
