"""The operator's commands, by noun."""
