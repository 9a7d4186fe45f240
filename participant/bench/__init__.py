"""The agent's side of its worker: process, messages, isolation, job folders. Imports no torch."""
