"""Submits the FedAvg recipe to a running deployment and waits for its end.

python job.py --kit ADMIN_KIT --total-bytes N --participants N --rounds N --result FILE
"""

import argparse
import sys
import time

from nvflare.fuel.utils.constants import FrameworkType
from nvflare.recipe import ProdEnv
from nvflare.recipe.fedavg import FedAvgRecipe
from persistor import TimedPersistor

GC_ROUNDS = 1
"""NVFLARE's memory management guide for large models: collect garbage and trim the heap in every round."""
TRANSFER_SECONDS = 600.0
STATUS_SECONDS = 10.0
"""Each question logs in anew, which costs the server time."""


def recipe(options: argparse.Namespace) -> FedAvgRecipe:
    """FedAvg with numpy parameters, the trainer inside the client's job process (NVFLARE's default)."""
    made = FedAvgRecipe(
        name="peers",
        min_clients=options.participants,
        num_rounds=options.rounds,
        train_script="client.py",
        framework=FrameworkType.NUMPY,
        model_persistor=TimedPersistor(
            total_bytes=options.total_bytes,
            participants=options.participants,
            rounds=options.rounds,
            result=options.result,
        ),
        server_memory_gc_rounds=GC_ROUNDS,
        client_memory_gc_rounds=GC_ROUNDS,
    )
    made.add_server_file("workload.py")
    made.add_server_file("persistor.py")
    made.add_client_file("workload.py")
    # The timeout guide's advice for large models: a task and a result may take long to travel.
    made.add_client_config({"get_task_timeout": TRANSFER_SECONDS, "submit_task_result_timeout": TRANSFER_SECONDS})
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kit", required=True)
    parser.add_argument("--user", required=True)
    for name in ("--total-bytes", "--participants", "--rounds"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--result", required=True)
    options = parser.parse_args()
    run = recipe(options).run(ProdEnv(startup_kit_location=options.kit, username=options.user, login_timeout=60.0))
    while True:
        status = str(run.get_status())
        if "FINISHED" in status:
            print(f"job {run.get_job_id()}: {status}", flush=True)
            return 0 if "COMPLETED" in status else 1
        time.sleep(STATUS_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
