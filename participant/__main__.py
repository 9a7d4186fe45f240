"""`python -m participant` is `llmasos-participant`."""

from participant.cli import main

main()
