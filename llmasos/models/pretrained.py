"""Initial weights from a folder in Hugging Face layout: `plan prepare` takes them, a participant gets them as the run's blob.

    model = model_of(plan, tokenizer)                       # the architecture's initial weights
    fill_from_folder(model, plan.model, Path("./folder"))   # those of the folder in their place

Only safetensors are read, by transformers, into the class that the plan's type and head stand for, under the configuration that
the plan means; nothing in the folder is executed, nothing is fetched. A head that the folder's model has not keeps its initial
weights: that is how a model that was pre-trained gets its task.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import UsageError
from common.plan.architectures import Model
from common.plan.pretrained import read_config
from llmasos.models.adapters import begin_beside, is_adapter_tensor, tensor_name

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

_INDEX = "model.safetensors.index.json"
_NAMES = """model_type architectures _name_or_path transformers_version dtype torch_dtype llmasos_initial_tensors id2label
label2id num_labels problem_type task_specific_params"""
_CALLS_AND_GENERATION = """use_cache return_dict output_attentions output_hidden_states bos_token_id eos_token_id pad_token_id
decoder_start_token_id forced_eos_token_id forced_bos_token_id max_length num_beams bad_words_ids do_sample early_stopping"""
_TRAINING = """initializer_range initializer_factor init_std gradient_checkpointing resid_pdrop embd_pdrop attn_pdrop dropout
dropout_rate hidden_dropout_prob attention_probs_dropout_prob attention_dropout activation_dropout classifier_dropout
summary_first_dropout encoder_layerdrop decoder_layerdrop layerdrop"""
_NOT_READ = """summary_type summary_use_proj summary_activation summary_proj_to_labels n_ctx n_positions max_window_layers
pretraining_tp"""
_WITHOUT_EFFECT = frozenset(f"{_NAMES} {_CALLS_AND_GENERATION} {_TRAINING} {_NOT_READ}".split())
"""Keys of a config.json that change nothing of what a model computes when it is measured, or that weights' shapes tell."""
_NEW_HEADS = ("score.", "classifier.", "qa_outputs.", "cls.", "bert.pooler.", "lm_head.")
"""What another task's model may lack, and keep of its initial weights."""
_FIX = "Name a folder as `save_pretrained`, `llmasos simulate` or `llmasos plan export` writes it."


def fill_from_folder(module: torch.nn.Module, model: Model, folder: Path) -> None:
    """Overwrite the weights of `module`, which `model` describes, with those of the folder. An adapter's stay as they are, but
    for those that begin as a function of these.

    Raises:
        UsageError: a sentence that names the folder: no safetensors, half-written ones, a configuration that computes something
            else than the plan's model, tensors that are too many, too few or of another shape.
        InvalidConfiguration: as llmasos.models.adapters.begin_beside.
    """
    import torch

    config: PretrainedConfig = module.config  # type: ignore[assignment]
    _check_files(folder)
    _check_config(config, folder)
    loaded, absent = _load(type(module), config, folder)  # type: ignore[arg-type]
    mine = {tensor_name(name): value for name, value in module.state_dict(keep_vars=True).items()}
    with torch.no_grad():
        for name, value in loaded.items():
            if name in mine and name not in absent and not is_adapter_tensor(name):
                mine[name].detach().copy_(value)
    begin_beside(module)


def _check_files(folder: Path) -> None:
    if (folder / "model.safetensors").is_file() or (folder / _INDEX).is_file():
        return
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    found = f"; {pickled[0]} is a pickle, which can hold code and is never read" if pickled else ""
    raise UsageError(f"{folder} holds no model.safetensors{found}.", _FIX)


def _check_config(config: PretrainedConfig, folder: Path) -> None:
    """What the folder's model computes is what the plan's does."""
    try:
        given = read_config(folder)
        theirs = type(config).from_dict(given).to_dict()
    except ValueError as err:
        raise UsageError(f"{err}.", _FIX) from err
    except Exception as err:  # transformers checks types by a library of its own, and raises that one's errors
        raise UsageError(f"{folder / 'config.json'} is not valid: {_first_line(err)}", _FIX) from err
    ours = config.to_dict()
    for key in sorted(theirs.keys() | ours.keys() | given.keys()):
        told, meant = theirs.get(key, given.get(key)), ours.get(key)
        if key not in _WITHOUT_EFFECT and not _equal(told, meant):
            raise UsageError(
                f"{folder / 'config.json'} says {key} {_shown(told)}, this release and the plan's model compute with "
                f"{_shown(meant)}.",
                "Name a model that this release computes as it was trained.",
            )


def _equal(told: Any, meant: Any) -> bool:
    return bool(told == meant) or (told in (None, False, {}, 0) and meant is None)


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)[:80]


def _load(
    found: type[PreTrainedModel], config: PretrainedConfig, folder: Path
) -> tuple[Mapping[str, torch.Tensor], set[str]]:
    """The folder's tensors by the module's names, and which of them the folder has not."""
    import torch
    from safetensors import SafetensorError

    try:
        with _quiet():
            both: Any = found.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                key_mapping=_renamed(found),
            )
    except SafetensorError as err:
        raise UsageError(
            f"{folder} holds safetensors that are damaged or half written: {_first_line(err)}", _FIX
        ) from err
    except (OSError, ValueError, RuntimeError) as err:
        raise UsageError(f"{folder} holds a model that cannot be loaded: {_first_line(err)}", _FIX) from err
    loaded, report = both
    _check_report(report, found.base_model_prefix, folder)
    return loaded.state_dict(), set(report["missing_keys"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bar and report on tensors: ours is an error, or nothing."""
    from transformers.utils import logging as theirs

    before, bar = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity(logging.ERROR)
    theirs.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        theirs.set_verbosity(before)
        if bar:
            theirs.enable_progress_bar()  # type: ignore[no-untyped-call]


def _renamed(found: type[PreTrainedModel]) -> dict[str, str] | None:
    """Models for question answering call `transformer` what their kin call `model`."""
    if found.__name__ in {f"{kind}ForQuestionAnswering" for kind in ("Llama", "Mistral", "Qwen2", "Qwen3")}:
        return {r"^model\.": "transformer."}
    return {r"^transformer\.": "model."} if found.base_model_prefix == "model" else None


def _check_report(report: Mapping[str, Any], prefix: str, folder: Path) -> None:
    wrong = sorted(str(one[0]) if isinstance(one, tuple) else str(one) for one in report["mismatched_keys"])
    if wrong:
        raise UsageError(f"{folder} holds {_named(wrong)} in another shape than the plan's model has.", _FIX)
    lacking = sorted(name for name in report["missing_keys"] if not name.startswith(_NEW_HEADS))
    if lacking:
        raise UsageError(f"{folder} lacks {_named(lacking)}, which the plan's model has.", _FIX)
    beyond = sorted(name for name in report["unexpected_keys"] if name.startswith(f"{prefix}.") and ".layer" in name)
    if beyond:
        raise UsageError(f"{folder} holds {_named(beyond)}, which the plan's model has not.", _FIX)


def _named(names: list[str]) -> str:
    more = f" and {len(names) - 2:,} more tensors" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more


def _first_line(err: Exception) -> str:
    return str(err).strip().splitlines()[0][:300] if str(err).strip() else type(err).__name__
