"""The run's last global model: in Hugging Face layout, on everybody's held-out text, and a sample of what it writes.

torch is imported inside the functions: a simulation that fails before needs none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llmasos.preparation import Prepared
from llmasos.simulation.deployment import InstitutionFolder
from llmasos.simulation.results import Scores, scores_from_sums

if TYPE_CHECKING:
    import torch

    from llmasos.datasets.loading import Split
    from llmasos.evaluation.measured import Evaluation
    from llmasos.training.corpus import Corpus

SAMPLE_TOKENS = 80
SAMPLE_SEED = 1


def load_final(prepared: Prepared, tensors: Path) -> torch.nn.Module:
    """The model that `run export` gave as `tensors`.

    Raises:
        WrongTensors, StorageFailure: they are not the plan's, or cannot be read.
    """
    from llmasos.models.build import model_of, read_tensors
    from llmasos.tokenizers import load

    plan = prepared.draft.plan
    model = model_of(plan, load(prepared.tokenizer))
    read_tensors(model, tensors, prepared.draft.manifest)
    return model


def export_final(prepared: Prepared, tensors: Path, folder: Path, *, base: Path | None = None) -> None:
    """Write `folder` in Hugging Face layout; where an adapter was trained, it is in there, and what it belongs to in `base`
    if that is named."""
    from llmasos.language_model.storing import write_card
    from llmasos.models.build import export_hf
    from llmasos.models.export import export_base

    model = load_final(prepared, tensors)
    initial = [entry.name for entry in prepared.draft.manifest if entry.group == "personal"]
    task = prepared.draft.plan.task
    export_hf(model, prepared.tokenizer, folder, initial=initial, task=task)
    write_card(folder, task)
    if base is not None and prepared.draft.plan.adapter.type != "none":
        export_base(model, prepared.tokenizer, base, task=task)


def sample(folder: Path, prompt: str) -> str:
    """What the model writes after `prompt`, without it; the same each time. Nothing, where its head writes no text."""
    from transformers.utils.logging import disable_progress_bar

    from llmasos.generation import WRITING, generate_text, head_in

    if head_in(folder) not in WRITING:
        return ""
    disable_progress_bar()  # type: ignore[no-untyped-call]  # ours is on the same stream
    text = generate_text(folder, prompt, max_new_tokens=SAMPLE_TOKENS, seed=SAMPLE_SEED)
    return text.removeprefix(prompt)


@contextmanager
def open_corpora(
    prepared: Prepared, institutions: Sequence[InstitutionFolder], tokens: Path
) -> Iterator[dict[str, Corpus]]:
    """Every institution's text as tokens, by its name; encoded now where it is not yet."""
    from contextlib import ExitStack

    from llmasos.training.corpus import Source, prepare_corpus

    with ExitStack() as open_files:
        yield {
            one.name: open_files.enter_context(
                prepare_corpus(
                    [Source(one.folder.resolve(), one.text_column)], prepared.tokenizer, tokens, prepared.draft.plan
                )
            )
            for one in institutions
        }


def encode_texts(prepared: Prepared, institutions: Sequence[InstitutionFolder], tokens: Path) -> None:
    """Encode all institutions' text once, for all baselines that follow."""
    with open_corpora(prepared, institutions, tokens):
        pass


def measure(
    prepared: Prepared,
    tensors: Path,
    institutions: Sequence[InstitutionFolder],
    tokens: Path,
    own: Callable[[str], tuple[Path, int]],
) -> Scores:
    """The model on every institution's held-out text, for plans that show nobody's numbers but the sum.

    Args:
        own: an institution's folder of personal layers, and the round after which they belong to this model.
    """
    from llmasos.evaluation.perplexity import evaluate
    from llmasos.models.personal import PersonalFolder
    from llmasos.tasks.registry import objective_of

    model, sums = load_final(prepared, tensors), {}
    with open_corpora(prepared, institutions, tokens) as corpora:
        for name, one in corpora.items():
            folder, number = own(name)
            PersonalFolder(folder, prepared.draft.manifest).read(model, number)
            sums[name] = evaluate(model, objective_of(one.plan.task), one.held_out_rows())
    return scores_from_sums(sums)


def measure_more(
    prepared: Prepared, tensors: Path, institutions: Sequence[InstitutionFolder], own: Callable[[str], tuple[Path, int]]
) -> Evaluation:
    """The model on what each institution holds out, by everything that the task has beside the loss: accuracy, F1, bits a byte.

    Statements of a run carry losses alone. Here all data are on one machine, whatever the plan lets institutions see.

    Args:
        own: as `measure`.
    """
    from llmasos.evaluation.held_out import held_out_split, measure_institutions
    from llmasos.models.personal import PersonalFolder
    from llmasos.tokenizers import load

    plan, tokenizer, model = prepared.draft.plan, load(prepared.tokenizer), load_final(prepared, tensors)

    def parts() -> Iterator[tuple[str, Split]]:
        for one in institutions:
            folder, number = own(one.name)
            PersonalFolder(folder, prepared.draft.manifest).read(model, number)
            yield one.name, held_out_split(one.folder.resolve(), tokenizer, plan, text_column=one.text_column)

    return measure_institutions(model, parts(), plan)
