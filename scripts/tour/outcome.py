"""The tour from two lies to the run's end: what the coordinator takes, refuses, computes and closes."""

from __future__ import annotations

from typing import Any

import numpy as np

from common.statements.kinds import Kind
from scripts.tour.ledger import TourLedger, follow, submit
from scripts.tour.markdown import Dump, Step, pretty, table


def refusals(ledger: TourLedger) -> Step:
    recording = ledger.recording
    first, second = recording.refused
    entries = ledger.all(Kind.REFUSAL)
    return Step(
        "Two lies, and what becomes of them",
        (
            f"""{recording.liar} has contributed. Now it sends a second contribution to the same slot, with a larger
            num_tokens and a good signature, straight through the gRPC stub: its agent and journal would not do it.
            Then it sends that payload under the first one's signature, as somebody would who can change bytes and
            holds no key.""",
            """Both are refused to the sender, with code, message and fix, and recorded for everybody. The record says
            what can be proved: the first was signed by the institution, the second merely came on its connection. The
            refused bytes are not kept, only their SHA-256.""",
        ),
        passes=(
            ("coordinator", "coordinator/desk.py:CommandDesk.submit", "refuses, and records the refusal"),
            ("coordinator", "common/ledger/rules.py:admit_verified", "the slot is taken"),
            ("coordinator", "common/statements/envelope.py:verify", "the signature is not this payload's"),
            ("coordinator", "common/wire/errors.py:trailing_metadata", "how an error travels"),
            ("liar", "common/wire/errors.py:error_from_rpc", "and becomes the same error again"),
        ),
        dumps=(
            Dump(
                f"What {recording.liar} gets for the second contribution, status {first['status']}:",
                pretty(first["detail"]),
            ),
            Dump(f"Payload of the refusal, ledger entry {entries[0].index}:", entries[0].shown),
            Dump(f"For the altered bytes, status {second['status']}:", pretty(second["detail"])),
            Dump(f"Predicate of the refusal, ledger entry {entries[1].index}:", pretty(entries[1].predicate)),
        ),
    )


def sealed(ledger: TourLedger) -> Step:
    seal = ledger.recording.seal
    return Step(
        "The seal",
        (
            """The last of the cohort has contributed, so the engine seals the round: a row in the state database,
            after which no contribution is taken any more, also after a restart. A deadline that passes seals it too,
            or leases that lapse once the quorum is in. The sealed set is what stands in the ledger: nothing that
            comes later can change it.""",
        ),
        passes=(
            ("coordinator", "coordinator/rounds/engine.py:Engine.collect", "is anything more to come?"),
            (
                "coordinator",
                "coordinator/rounds/phases.py:seal_reason",
                "all in, deadline, or only the silent are missing",
            ),
            ("coordinator", "coordinator/ledger.py:Ledger.seal", "durable"),
        ),
        dumps=(Dump("The row, beside the digest of the round's opening:", pretty(seal)),),
    )


def reduced(ledger: TourLedger) -> Step:
    return Step(
        "Deltas become a model",
        (
            """The reducer reads base and deltas chunk by chunk, hashes each again, and writes the new model. Its
            arithmetic is fixed to the bit: institutions in order of their names, float64 sums of exact products, one
            division, one rounding to float32. So everybody who may read the deltas computes the same bytes.""",
        ),
        passes=(
            ("coordinator", "coordinator/rounds/engine.py:Engine.commit", "quorum is there: commit"),
            (
                "coordinator",
                "coordinator/aggregation.py:Aggregation.aggregate",
                "opens blobs, schedules, stores the result",
            ),
            ("coordinator", "common/reduce/round.py:reduce_round", "out of core, the same memory for any model"),
            ("coordinator", "common/reduce/rules/weighted_mean.py:weighted_mean", "the rule of this plan"),
            ("coordinator", "common/reduce/server_sgd.py:ServerSGDStep.update", "its server optimizer"),
            (
                "coordinator",
                "common/blobs/writer.py:BlobWriter.commit",
                "the model is durable before anybody hears of it",
            ),
        ),
        dumps=(
            Dump(
                """Element 0 of the first tensor, with the numbers of this run. Each delta is multiplied by its
                institution's num_tokens; lr is the server optimizer's learning rate:""",
                _arithmetic(ledger.recording.element, str(ledger.plan.plan.server_optimizer.learning_rate)),
                "text",
            ),
        ),
    )


def _arithmetic(element: dict[str, Any], learning_rate: str) -> str:
    """The formula of docs/protocol.md#weighted-mean, step by step.

    Raises:
        ValueError: the recorded model is not what the formula gives.
    """
    acc, lines = np.float64(0.0), []
    for name in sorted(element["deltas"]):
        tokens, delta = element["deltas"][name]
        acc += np.float64(tokens) * np.float64(delta)
        lines.append(f"acc = acc + {tokens:>2} × {delta!r:<24} = {float(acc)!r:<22}   {name}")
    total = sum(int(tokens) for tokens, _ in element["deltas"].values())
    mean = np.float32(acc / np.float64(total))
    new = float(np.float32(element["base"]) + np.float32(float(learning_rate)) * mean)
    if new != element["new"]:
        raise ValueError(f"element 0 of the model is {element['new']!r}, by the formula {new!r}")
    lines.append(f"g   = float32(acc ÷ {total}) = {float(mean)!r}")
    lines.append(
        f"new = base + lr × g = {element['base']!r} + {learning_rate} × g = {new!r}, as in the new model's blob"
    )
    return "\n".join(lines)


def closed(ledger: TourLedger) -> Step:
    entry = ledger.first(Kind.ROUND_CLOSED)
    return Step(
        "The round closes",
        (
            """The coordinator names in one statement what went in, by digest and weight, and what came out. Each
            participant checks that every contribution of the round is accounted for. The next round, if there is one,
            must start from this model and name this statement as its parent.""",
        ),
        passes=(
            ("coordinator", "coordinator/rounds/engine.py:sealed_inputs", "every contribution, in order of names"),
            ("coordinator", "coordinator/ledger.py:Ledger.append", "signed and durable, then visible"),
            ("both", "common/ledger/rules.py:admit", "inputs complete, quorum met, rule as planned"),
            ("participant", "participant/agent.py:Agent.run", "goes on with whatever is next"),
        ),
        calls=(follow(entry),),
        dumps=(Dump("Payload:", entry.shown),),
    )


def ended(ledger: TourLedger) -> Step:
    evaluation, control = ledger.all(Kind.ROUND_OPENED)[1], ledger.first(Kind.CONTROL)
    measured = next(
        entry
        for entry in ledger.all(Kind.CONTRIBUTION)
        if entry.predicate["round"] == 2 and entry.signer == ledger.recording.institution
    )
    by_digest = {entry.statement.digest: entry.index for entry in ledger.entries}
    rows = []
    for entry in ledger.entries:
        parent = by_digest.get(entry.statement.parent.digest)
        follows = "the CA certificate" if parent is None else str(parent)
        size = len(entry.statement.envelope)
        rows.append([str(entry.index), entry.statement.kind.value, entry.signer, follows, f"{size:,}"])
    return Step(
        "The last measurement, and the end",
        (
            f"""The planned round is done. One round of task `evaluate` follows (entry {evaluation.index}): the same
            steps without a delta, so that the last model is measured too. Then the engine ends the run.""",
        ),
        passes=(
            ("coordinator", "coordinator/rounds/phases.py:next_step", "another round, the evaluation, or the end"),
            ("participant", "participant/bench/workbench.py:Workbench.evaluate", "measures only"),
            ("coordinator", "coordinator/rounds/engine.py:Engine.end", "the run's last statement"),
        ),
        calls=(submit(measured, ledger.metrics(2)), follow(control)),
        dumps=(
            Dump("Predicate of a contribution to an evaluation:", pretty(measured.predicate)),
            Dump("Payload of the last statement:", control.shown),
            Dump(
                "The whole ledger of this consortium. `follows` is the entry that the statement names as its parent:",
                table(["entry", "kind", "signed by", "follows", "bytes"], rows),
                "",
            ),
        ),
    )


STEPS = (refusals, sealed, reduced, closed, ended)
