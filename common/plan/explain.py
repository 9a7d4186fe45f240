"""A plan in words: every field with its meaning, the numbers that follow from it, and what happens in a round.

explanation = explain(plan)
explanation.rows[4]      Row(section="local", field="steps", value="25", is_default=True, meaning="Optimizer steps a round.")
explanation.derived[0]   Derived(name="tokens a round", value="25,600", meaning="…")
explanation.prose        ["1. The coordinator opens …", …]
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from common.plan.adapters import LayerAdapter, VirtualTokens
from common.plan.codecs import TopkCodec
from common.plan.local import MAX_NUM_TOKENS
from common.plan.model import Plan
from common.plan.rounds import Buffered
from common.plan.rules import Withstands
from common.plan.tokenizers import BYTES_TOKENS, BpeTokenizer, BytesTokenizer


@dataclass(frozen=True, slots=True)
class Row:
    """One field of the plan. `is_default`: leaving it out would mean the same."""

    section: str
    field: str
    value: str
    is_default: bool
    meaning: str


@dataclass(frozen=True, slots=True)
class Derived:
    """A number that the plan implies."""

    name: str
    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything `llmasos plan explain` shows; `prose` is one sentence or two for each step of a round, in order."""

    rows: tuple[Row, ...]
    derived: tuple[Derived, ...]
    prose: tuple[str, ...]


def explain(plan: Plan) -> Explanation:
    """The plan in words. Pure: nothing is read or prepared, so what only preparing tells is called unknown."""
    return Explanation(tuple(_rows(plan)), _derived(plan), _prose(plan))


# --- fields --------------------------------------------------------------------------------------------------------------


def _rows(section: BaseModel, path: str = "", default: Any = None) -> Iterator[Row]:
    """Rows of a section's own fields first, then of the sections inside.

    `default` is what stands for the section when it is left out; None where nothing does.
    """
    fields = type(section).model_fields
    for name, field in fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            continue
        if name == "type":
            yield Row(path, name, str(value), type(default) is type(section), _first_paragraph(type(section)))
        else:
            is_default = not field.is_required() and value == field.get_default()
            yield Row(path, name, show(value), is_default, field.description or "")
    for name, field in fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            inner = None if field.is_required() else field.get_default()
            yield from _rows(value, f"{path}.{name}" if path else name, inner)


def show(value: object) -> str:
    """A value as a plan file would hold it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    if isinstance(value, tuple):
        return "[" + ", ".join(show(item) for item in value) + "]"
    if isinstance(value, BaseModel):
        return "{" + ", ".join(f"{name}: {show(getattr(value, name))}" for name in type(value).model_fields) + "}"
    return str(value) if value != "" else '""'


def adapter_text(plan: Plan) -> str:
    """What is trained where that is not the whole model: `lora, r 8 on q_proj, v_proj`; else nothing."""
    return plan.adapter.words


def _first_paragraph(model: type[BaseModel]) -> str:
    return " ".join((inspect.getdoc(model) or "").split("\n\n")[0].split())


# --- numbers -------------------------------------------------------------------------------------------------------------


def _derived(plan: Plan) -> tuple[Derived, ...]:
    local = plan.local
    micro_batch = local.micro_batch_size or local.batch_size
    tokens = local.tokens_per_round
    table = (
        (
            "tokens a round",
            tokens,
            "steps × batch_size × sequence_length, at each institution; no delta may weigh more.",
        ),
        ("weight bound", MAX_NUM_TOKENS, "No plan may exceed it: below 2^29, weight × float32 is exact in float64."),
        ("tokens a step", local.batch_size * local.sequence_length, "One optimizer step of one institution."),
        ("accumulation", local.batch_size // micro_batch, "Backward passes a step, micro_batch_size sequences each."),
        ("local steps in all", plan.rounds * local.steps, "At an institution that is in every cohort."),
        ("local tokens in all", plan.rounds * tokens, "What such an institution trains on at most."),
        ("vocabulary", _vocabulary(plan), "Tokens that the model knows."),
        ("parameters", None, "Known after `llmasos plan prepare`, which makes tokenizer, tensor list and weights."),
        *_adapted(plan),
    )
    return tuple(Derived(name, "unknown" if n is None else f"{n:,}", meaning) for name, n, meaning in table)


def _adapted(plan: Plan) -> Iterator[tuple[str, int, str]]:
    adapter = plan.adapter
    if isinstance(adapter, LayerAdapter):
        layers = len(adapter.targets(plan.model))
        yield (
            "adapted layers",
            layers,
            "In each transformer block: linear layers beside which small tensors are trained.",
        )
    if isinstance(adapter, VirtualTokens):
        room = plan.model.context_tokens - adapter.virtual_tokens
        yield ("room for text", room, "Tokens of the model's context that virtual tokens leave.")


def _vocabulary(plan: Plan) -> int | None:
    if plan.model.vocab_size is not None:
        return plan.model.vocab_size
    match plan.tokenizer:
        case BytesTokenizer():
            return BYTES_TOKENS
        case BpeTokenizer(vocab_size=size):
            return size
    return None


# --- a round -------------------------------------------------------------------------------------------------------------


def _prose(plan: Plan) -> tuple[str, ...]:
    local = plan.local
    lifetime = "are kept from round to round" if local.optimizer_state == "keep" else "start anew each round"
    moments = f"; the optimizer's moments {lifetime}" if local.optimizer.moments_a_weight else ""
    return (
        f"The coordinator opens a round and invites {_cohort(plan)}; the opening names the base model by digest.",
        f"Each institution fetches {_what_comes(plan)} and measures it on its own held-out documents "
        f"({show(plan.evaluation.held_out_fraction)} of them, at most {plan.evaluation.max_tokens:,} tokens).",
        f"It trains {local.steps} steps on its own text, {local.batch_size} × {local.sequence_length} tokens each, with "
        f"{local.optimizer.type}{_pull(plan)}{_turned(plan)}{moments}.",
        *_personal(plan),
        f"It sends its delta ({_delta(plan)}){_encoding(plan)}{_control(plan)} and signs a contribution that names it, "
        f"{_claims(plan)}. A delta with NaN, infinity, or an L2 norm above "
        f"{show(plan.max_delta_l2)} is refused.",
        f"The round is sealed when {_enough(plan)} have contributed, or after {plan.deadline_seconds:,} s. "
        f"With {plan.quorum} or more verified deltas it commits; with fewer it is abandoned, and the model stays as it was.",
        *_late(plan),
        f"On commit: new model = base + {_step(plan)}{_downlink(plan)}.{_withstands(plan)}",
        _visibility(plan),
        _ending(plan),
    )


def _personal(plan: Plan) -> Iterator[str]:
    if plan.personal:
        yield (
            f"What is called {', '.join(plan.personal)} it trains for itself, from the plan's initial values on: that never "
            "leaves, is measured with the shared rest, and is kept when the run has ended. The final model has initial values "
            "there, so it is whole only beside an institution's own layers."
        )


def _pull(plan: Plan) -> str:
    mu = plan.local.fedprox_mu
    return f", pulled back to the base model by {show(mu)} × how far it is from it" if mu else ""


def _turned(plan: Plan) -> str:
    return ", each step turned by how the institutions' mean gradient differs from its own" if plan.corrects else ""


def _claims(plan: Plan) -> str:
    """What a contribution says of the work behind it."""
    most = plan.max_num_bytes
    tokens = "with how many tokens it trained on"
    return tokens if most is None else f"{tokens} and how many bytes these say (above {most:,} is refused)"


def _control(plan: Plan) -> str:
    if plan.max_control_l2 is None:
        return ""
    refused = f"an L2 norm above {show(plan.max_control_l2)} is refused"
    return f", and beside it by how much its own mean gradient changed ({refused}),"


def _cohort(plan: Plan) -> str:
    cohort = plan.cohort
    if cohort.is_everyone:
        return "every institution that accepted the plan"
    many = str(cohort.size) if cohort.size is not None else f"a share of {show(cohort.fraction)}"
    more = f", and {show(cohort.over_selection)} of that beyond," if cohort.over_selection else ""
    drawn = {
        "uniform": "drawn by lot",
        "weighted": "drawn by lot, with chances as the tokens that each trained on last",
        "round-robin": "in turn",
        "available": "by lot, those first who contributed when they were last invited",
    }[cohort.selection]
    return f"{many}{more} of the institutions that accepted the plan, {drawn}"


def _enough(plan: Plan) -> str:
    if isinstance(plan.mode, Buffered):
        return f"{plan.mode.buffer}"
    return "as many as were wanted" if plan.cohort.over_selection else "all"


def _late(plan: Plan) -> Iterator[str]:
    if isinstance(plan.mode, Buffered):
        yield (
            f"Nobody waits: a delta that is done when its round is closed goes into the open one, up to "
            f"{plan.mode.max_staleness} rounds late; s rounds late its weight is ÷ sqrt(1 + s)."
        )


def _delta(plan: Plan) -> str:
    return "new minus base weights" + ("" if plan.adapter.type == "none" else ", of the adapter alone")


def _encoding(plan: Plan) -> str:
    if plan.codec.type == "float32":
        return ""
    share = f" with {show(plan.codec.fraction)} of its numbers" if isinstance(plan.codec, TopkCodec) else ""
    return f", as {plan.codec.type}{share}; what that loses is added to its next delta;"


def _what_comes(plan: Plan) -> str:
    """In the first round all of it; in later ones what rounds added, or the 4 MiB chunks that can have changed."""
    if plan.downlink is not None:
        return "the base model, or what rounds added since the one that it holds,"
    return "the base model" + (
        "" if plan.adapter.type == "none" else " (after its first round only the chunks with the adapter)"
    )


def _step(plan: Plan) -> str:
    optimizer, mean = plan.server_optimizer, plan.rule.outcome.format(weighting=plan.weighting.words)
    rate = show(optimizer.learning_rate)
    if not optimizer.slots:
        return f"{rate} × {mean}"
    count, plural = len(optimizer.slots), "" if len(optimizer.slots) == 1 else "s"
    return (
        f"what {optimizer.type} with learning rate {rate} makes of the {mean}; of each weight it keeps {count} "
        f"number{plural} ({', '.join(optimizer.slots)}) for the next round"
    )


def _downlink(plan: Plan) -> str:
    if plan.downlink is None:
        return ""
    added = f", as {plan.downlink.type} says it, so that this is all that who holds the base has to fetch"
    return added if plan.downlink.type == "float32" else added + "; what that loses is added in the next round"


def _withstands(plan: Plan) -> str:
    if not isinstance(plan.rule, Withstands):
        return ""
    return f" That holds whatever {plan.rule.byzantine} of the deltas are, and needs {plan.rule.least_deltas:,} deltas a round."


def _visibility(plan: Plan) -> str:
    losses = {
        "none": "nobody sees held-out losses",
        "pooled": "only sums over 3 or more institutions show held-out losses",
        "institution": "each institution's held-out losses are visible",
    }[plan.metrics_visibility]
    compared = {
        "none": "what each delta did to the model is shown to nobody",
        "own": "each institution is shown what its own deltas did to the model",
        "operator": "what each one's deltas did to the model is shown to it, to the operator and to those auditors",
    }[plan.contributions_visibility]
    readers = "the coordinator" + "".join(f", {auditor}" for auditor in plan.delta_audience)
    small = (
        " The quorum is below 3: with two deltas, one institution can compute the other's." if plan.quorum < 3 else ""
    )
    return f"Deltas are readable by {readers}; {losses}; {compared}.{small}"


def _ending(plan: Plan) -> str:
    reasons = [f"after round {plan.rounds}"]
    if plan.stop.target_perplexity is not None:
        reasons.append(f"when the median held-out perplexity is {show(plan.stop.target_perplexity)} or below")
    if plan.stop.patience_rounds is not None:
        reasons.append(f"when it has not improved for {plan.stop.patience_rounds} rounds")
    return f"The run ends {', or '.join(reasons)}; a last task measures the final model."
