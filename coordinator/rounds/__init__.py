"""Rounds: states, decisions and the engine that owns every transition. No network, no store: those come as ports."""
