"""How the forward pass of training runs: compiled or not, with all activations kept or only each layer's input."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

import torch

from common.errors import UsageError
from common.plan.local import Local
from llmasos.training.device import COMPILE_FALLBACK, Machine

log = logging.getLogger(__name__)


def prepare_forward(local: Local, model: torch.nn.Module, machine: Machine) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """What to call for a forward pass of training; it has the weights of `model`. And codes of what is not as the
    plan says.

    Raises:
        UsageError: the model cannot compute its layers again, as `gradient_checkpointing` wants it.
    """
    _checkpoint(model, wanted=local.gradient_checkpointing)
    if not local.compile:
        return model, ()
    lacking = _lacks_for_compiling(machine)
    if lacking:
        log.warning("the plan's local.compile is not done here: %s", lacking)
        return model, (COMPILE_FALLBACK,)
    torch.use_deterministic_algorithms(True)  # what is compiled, too
    return cast(torch.nn.Module, torch.compile(model)), ()


def _checkpoint(model: torch.nn.Module, *, wanted: bool) -> None:
    """Switch it on or off, as the model may have been used by another plan before."""
    if wanted and not getattr(model, "supports_gradient_checkpointing", False):
        raise UsageError(
            f"The plan has local.gradient_checkpointing, which {type(model).__name__} does not support.",
            "Leave it out.",
        )
    if wanted:
        _method(model, "checkpointing_enable")({"use_reentrant": False})
    elif any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        _method(model, "checkpointing_disable")()


def _method(model: torch.nn.Module, name: str) -> Callable[..., None]:
    """transformers says `activation_` from 5.20 on, and `gradient_` before."""
    found: Callable[..., None] = getattr(model, f"activation_{name}", None) or getattr(model, f"gradient_{name}")
    return found


def _lacks_for_compiling(machine: Machine) -> str:
    """What torch.compile would miss on this machine, found before the first step; empty: nothing."""
    # Here and not above: seconds to import, for plans that want it alone.
    from torch._dynamo.eval_frame import is_dynamo_supported

    if not is_dynamo_supported():
        return "torch.compile does not run on this Python"
    if machine.kind == "cuda":
        from torch.utils._triton import has_triton

        return "" if has_triton() else "Triton is not installed, or not for this GPU"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "no C++ compiler was found"
    return ""
