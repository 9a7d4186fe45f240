"""Faults at random instants against a real federation, with the undisturbed run's model as the oracle.

schedule.py     which fault comes when, by seed; it knows no steps of anybody's
network.py      a way that breaks, stands still, or is not there
disturbed.py    a federation whose processes are killed, stopped, and started again
campaign.py     run after run until enough faults were injected; what was lost, what came out wrong
__main__.py     python -m tests.faults --seed N --kills N
"""
