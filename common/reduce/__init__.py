"""The exact reducer: from a sealed round's deltas to the new model, the same bits on any machine (docs/protocol.md#arithmetic).

    round.py         reduce_round: reads base and deltas, asks the rule
    step.py          from what the rule combined to the new model: server optimizer, downlink, server_state
    downlink.py      what a round adds to the model, as it travels, and what that drops
    control.py       SCAFFOLD's control variate, which is what institutions read of it
    server_state.py  what rounds hand on besides the model, and how it lies in its blob
    weighted_mean.py, server_*.py       a rule, and server optimizers; `registry` finds them by the plan's `type`
    inspect.py       what is refused always: other tensors, NaN and infinity, too long a delta
    moved.py         how a delta lies to what its round added to the model: norm and cosine
    scalar.py        sums in float64 by a fixed tree
    loops.py         what is done with every number; common/compiled does it faster, where the installation could compile it
    selftest.py      this machine's arithmetic against golden.json

Only + − × ÷ sqrt, comparison and sorting on declared dtypes, because IEEE 754 fixes their bits. No BLAS, einsum, norm, exp or
pow: theirs change with processor and block size. Memory is a few chunks, whatever the model's size and the cohort's.
"""

from __future__ import annotations

from common.reduce.downlink import Beside
from common.reduce.inspect import DeltaFacts, inspect_delta
from common.reduce.round import ReduceJob, WeightedDelta, reduce_round

__all__ = ["Beside", "DeltaFacts", "ReduceJob", "WeightedDelta", "inspect_delta", "reduce_round"]
