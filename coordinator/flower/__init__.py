"""Flower's strategies in place of the plan's rule: for plans whose rule is `operator`, in models that fit in memory.

    settings.py     the section of coordinator.yaml
    strategy.py     one round through a strategy of flwr.serverapp.strategy
    state.py        what a strategy keeps between rounds, on disk

Needs the extra: pip install 'llmasos[flower]'. flwr is imported only where a strategy is configured.
"""
