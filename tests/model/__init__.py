"""The rounds of one run as a Promela model, every state of which spin visits.

round.pml       coordinator, institutions, network, clock; what they promise, and the mistakes that would break a promise
checking.py     what is checked, at which size; one run of spin
__main__.py     python -m tests.model: all of it at the larger size, as a table (`make model`)
"""
