"""The client's side, by NVFLARE's Client API: take the parameters, change them a little, send them back."""

import numpy as np
import nvflare.client as flare
from workload import mark


def main() -> None:
    flare.init()
    participant = int(flare.get_site_name().rpartition("-")[2]) - 1
    while flare.is_running():
        model = flare.receive()
        if model is None:
            break
        for values in model.params.values():
            mark(np.asarray(values), participant, model.current_round + 1)  # of a torch tensor, its own memory
        flare.send(flare.FLModel(params=model.params, meta={"NUM_STEPS_CURRENT_ROUND": 1}))


if __name__ == "__main__":
    main()
