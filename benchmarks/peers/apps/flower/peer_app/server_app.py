"""The server's side: FedAvg as it comes, with a clock around each round."""

import time
from collections.abc import Iterable
from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from peer_app.workload import fault, initial, write_result

app = ServerApp()


class TimedFedAvg(FedAvg):
    """FedAvg; `rounds` holds when each began and when its average was there, Unix seconds."""

    def __init__(self, participants: int) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=participants, min_available_nodes=participants)
        self._participants = participants
        self.rounds: list[tuple[float, float]] = []
        self._started = 0.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._started = time.time()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        replies = list(replies)
        failed = [reply.error.reason for reply in replies if reply.has_error()]
        if failed or len(replies) != self._participants:
            raise RuntimeError(
                f"round {server_round}: {len(replies) - len(failed)} of {self._participants} participants replied"
                + (f"; the first failure: {failed[0]}" if failed else "")
            )
        averaged = super().aggregate_train(server_round, replies)
        self.rounds.append((self._started, time.time()))
        return averaged


@app.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds, and the result in a file; a failure there too."""
    config = context.run_config
    result = Path(str(config["result"]))
    try:
        write_result(result, run(grid, config))
    except Exception as error:
        write_result(result, {"error": f"{type(error).__name__}: {error}"})
        raise


def run(grid: Grid, config: dict) -> dict:
    total, participants, rounds = (int(config[name]) for name in ("total-bytes", "participants", "rounds"))
    strategy = TimedFedAvg(participants)
    if not wait_for_nodes(grid, participants):
        raise RuntimeError(f"fewer than {participants} SuperNodes came")
    first = ArrayRecord({name: Array(values) for name, values in initial(total)}, keep_input=False)
    last = strategy.start(grid=grid, initial_arrays=first, num_rounds=rounds).arrays
    arrays = {name: last[name].numpy() for name in last}
    return {"rounds": strategy.rounds, "fault": fault(arrays, total, participants=participants, rounds=rounds)}


def wait_for_nodes(grid: Grid, participants: int, seconds: float = 120.0) -> bool:
    """The first round's clock starts when all are there."""
    deadline = time.monotonic() + seconds
    while len(list(grid.get_node_ids())) < participants:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True
