"""`python -m coordinator` is `llmasos-coordinator`."""

from coordinator.cli import main

main()
