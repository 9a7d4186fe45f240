"""The training process beside an institution's data: no keys, no network, alone to import torch and the SDK.

__main__.py     its start: lifeline, socket, then torch
agent_side.py   messages from and to the agent
session.py      one message at a time; errors become messages and the worker stays usable
job.py          one plan's data and model in the job folder
peers.py        the other ranks, where several processes train together
rounds.py       one round: evaluate the base model, train, write the delta
isolation.py    the inherited pipe, and what this process could reach
"""
