"""Submits the FedAvg recipe to a running deployment and waits for its end.

python job.py --kit ADMIN_KIT --total-bytes N --participants N --rounds N --result FILE
"""

import argparse
import sys
import time

from nvflare.client.config import ExchangeFormat
from nvflare.fuel.utils.constants import FrameworkType
from nvflare.recipe import ProdEnv
from nvflare.recipe.spec import Recipe
from persistor import TimedPersistor

GC_ROUNDS = 1
"""NVFLARE's memory management guide for large models: collect garbage and trim the heap in every round."""
TRANSFER_SECONDS = 600.0
STATUS_SECONDS = 10.0
"""Each question logs in anew, which costs the server time."""


def recipe(options: argparse.Namespace) -> Recipe:
    """FedAvg, the trainer inside the client's job process (NVFLARE's default).

    With torch, the server keeps what arrives on disk until it is added up, as the guide advises for large models; for numpy
    NVFLARE cannot do so.
    """
    if options.torch:
        from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe

        framework = {"server_expected_format": ExchangeFormat.PYTORCH, "enable_tensor_disk_offload": True}
    else:
        from nvflare.recipe.fedavg import FedAvgRecipe

        framework = {"framework": FrameworkType.NUMPY}
    made = FedAvgRecipe(
        **framework,
        name="peers",
        min_clients=options.participants,
        num_rounds=options.rounds,
        train_script="client.py",
        model_persistor=TimedPersistor(
            total_bytes=options.total_bytes,
            participants=options.participants,
            rounds=options.rounds,
            result=options.result,
            torch=options.torch,
        ),
        server_memory_gc_rounds=GC_ROUNDS,
        client_memory_gc_rounds=GC_ROUNDS,
    )
    if options.torch:
        made.add_decomposers(["nvflare.app_opt.pt.decomposers.TensorDecomposer"])
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
    parser.add_argument("--torch", action="store_true", help="exchange torch tensors instead of numpy arrays")
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
