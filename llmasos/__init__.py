"""The SDK: models, tokenizers, datasets, preparation, generation. Works offline, without a coordinator.

    import llmasos

    tokenizer = llmasos.tokenizers.train("./corpus", vocab_size=8192)
    data = llmasos.datasets.load_dataset("./corpus", tokenizer=tokenizer)
    model = llmasos.models.Transformer(d_model=512, nhead=8, num_layers=6)
    model.fit(data.train, llmasos.optimizers.Adam(lr=3e-4), llmasos.losses.CrossEntropyLoss())
    print(model.evaluate(data.validation), model.generate_text("import "))
    model.save("llm_model.pt")

    result = llmasos.simulate("plan.yaml", institutions={"a": "./a", "b": "./b", "c": "./c"})
    result.plot()

Importing it is cheap: torch, transformers and tokenizers are loaded by the functions that need them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmasos import adapters, datasets, losses, models, optimizers, tokenizers
    from llmasos.datasets.text import Document, read_documents, split_documents
    from llmasos.datasets.tokens import TokenFile, batches, held_out_windows, write_tokens
    from llmasos.evaluation.folder import EvaluationOptions, evaluate
    from llmasos.evaluation.measured import Evaluation
    from llmasos.generation import Sampling, generate_text
    from llmasos.language_model.settings import LoggingSettings, TrainingSettings
    from llmasos.models.build import build_model, manifest_of
    from llmasos.models.export import export_hf
    from llmasos.models.tensors import read_tensors, write_delta, write_tensors
    from llmasos.preparation import Prepared, load_prepared, prepare
    from llmasos.search.search import Search, TuneOptions, tune
    from llmasos.simulation.calling import simulate
    from llmasos.simulation.result import SimulationResult

_HOMES = {
    "Document": "llmasos.datasets.text",
    "Evaluation": "llmasos.evaluation.measured",
    "EvaluationOptions": "llmasos.evaluation.folder",
    "LoggingSettings": "llmasos.language_model.settings",
    "Prepared": "llmasos.preparation",
    "Sampling": "llmasos.generation",
    "SimulationResult": "llmasos.simulation.result",
    "Search": "llmasos.search.search",
    "TokenFile": "llmasos.datasets.tokens",
    "TrainingSettings": "llmasos.language_model.settings",
    "TuneOptions": "llmasos.search.search",
    "batches": "llmasos.datasets.tokens",
    "build_model": "llmasos.models.build",
    "evaluate": "llmasos.evaluation.folder",
    "export_hf": "llmasos.models.export",
    "generate_text": "llmasos.generation",
    "held_out_windows": "llmasos.datasets.tokens",
    "load_prepared": "llmasos.preparation",
    "manifest_of": "llmasos.models.build",
    "prepare": "llmasos.preparation",
    "read_documents": "llmasos.datasets.text",
    "read_tensors": "llmasos.models.tensors",
    "simulate": "llmasos.simulation.calling",
    "split_documents": "llmasos.datasets.text",
    "tune": "llmasos.search.search",
    "write_delta": "llmasos.models.tensors",
    "write_tensors": "llmasos.models.tensors",
    "write_tokens": "llmasos.datasets.tokens",
}

_MODULES = ("adapters", "datasets", "losses", "models", "optimizers", "tokenizers")

__all__ = [
    "Document",
    "Evaluation",
    "EvaluationOptions",
    "LoggingSettings",
    "Prepared",
    "Sampling",
    "Search",
    "SimulationResult",
    "TokenFile",
    "TrainingSettings",
    "TuneOptions",
    "adapters",
    "batches",
    "build_model",
    "datasets",
    "evaluate",
    "export_hf",
    "generate_text",
    "held_out_windows",
    "load_prepared",
    "losses",
    "manifest_of",
    "models",
    "optimizers",
    "prepare",
    "read_documents",
    "read_tensors",
    "simulate",
    "split_documents",
    "tokenizers",
    "tune",
    "write_delta",
    "write_tensors",
    "write_tokens",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"llmasos.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
