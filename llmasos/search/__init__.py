"""Search for a plan's settings: `llmasos tune`, and `llmasos.tune` as a function. Extra `tune` (optuna).

space.py       which fields, between what: read and checked
objective.py   what a trial is: a plan trained here without rounds, or a whole simulation
search.py      the loop: ask, try, tell; what a killed search left is taken up again
report.py      table, plots and the best plan
"""
