"""The server's side: the plan's rule and server optimizer, exactly, and the final model as a file."""

from pathlib import Path

from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from safetensors.numpy import save_file

from llmasos import load_prepared
from llmasos.flower import Strategy
from llmasos.training.institution import initial_arrays

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """As many rounds as the plan says."""
    prepared = Path(str(context.run_config["prepared"]))
    plan = load_prepared(prepared).draft.plan
    initial = ArrayRecord({name: Array(values) for name, values in initial_arrays(prepared).items()})
    strategy = Strategy(plan, fraction_evaluate=1.0, min_evaluate_nodes=plan.quorum)
    result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=plan.rounds)
    save_file({name: array.numpy() for name, array in result.arrays.items()}, str(context.run_config["out"]))
