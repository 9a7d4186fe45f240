"""Statements: the control plane's signed facts. `kinds` says what they say, `envelope` how they are signed."""
