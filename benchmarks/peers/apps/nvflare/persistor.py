"""Loads the first model, saves each round's as NVFLARE's own numpy persistor does, and keeps the clock of the rounds."""

import time
from pathlib import Path

import numpy as np
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey, make_model_learnable
from nvflare.app_common.abstract.model_persistor import ModelPersistor
from nvflare.app_common.app_event_type import AppEventType
from workload import fault, initial, write_result


class TimedPersistor(ModelPersistor):
    """NPModelPersistor for a model of many tensors: a round is from its start until its model is saved."""

    def __init__(self, total_bytes: int, participants: int, rounds: int, result: str, torch: bool) -> None:
        super().__init__()
        self.torch = torch
        self.total_bytes = total_bytes
        self.participants = participants
        self.rounds = rounds
        self.result = result
        self._started = 0.0
        self._times: list[tuple[float, float]] = []

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == AppEventType.ROUND_STARTED:
            self._started = time.time()
        super().handle_event(event_type, fl_ctx)

    def load_model(self, fl_ctx: FLContext) -> ModelLearnable:
        weights = dict(initial(self.total_bytes))
        if self.torch:
            from torch import from_numpy

            weights = {name: from_numpy(values) for name, values in weights.items()}
        return make_model_learnable(weights=weights, meta_props={})

    def save_model(self, model: ModelLearnable, fl_ctx: FLContext) -> None:
        folder = Path(fl_ctx.get_workspace().get_result_root(fl_ctx.get_job_id())) / "models"
        folder.mkdir(parents=True, exist_ok=True)
        weights = model[ModelLearnableKey.WEIGHTS]
        for name, values in weights.items():
            np.save(folder / f"{name}.npy", np.asarray(values))
        self._times.append((self._started, time.time()))
        if len(self._times) == self.rounds:
            wrong = fault(weights, self.total_bytes, participants=self.participants, rounds=self.rounds)
            write_result(Path(self.result), {"rounds": self._times, "fault": wrong})
