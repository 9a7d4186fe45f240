"""The tour from the round's opening to the contribution: what an institution does."""

from __future__ import annotations

from common.statements.kinds import Kind
from common.wire import convert
from common.wire.messages import ActivityReport, Purpose
from common.wire.v1 import work_pb2
from scripts.tour.ledger import TourLedger, download, follow, submit, upload
from scripts.tour.markdown import Call, Dump, Step, pretty, short, table


def opened(ledger: TourLedger) -> Step:
    entry = ledger.first(Kind.ROUND_OPENED)
    return Step(
        "The round opens",
        (
            """All active trainers have answered and enough accepted, so the engine opens round 1. The engine is one
            thread that owns every transition. Its loop asks each run for its next durable step until there is none.""",
            """The statement leaves the coordinator no choice: cohort and seed are computed from the plan's digest,
            the nonces of the answers, the round and the roster, and every participant computes them again.""",
        ),
        passes=(
            ("coordinator", "coordinator/rounds/engine.py:Engine.run", "the loop"),
            ("coordinator", "coordinator/rounds/engine.py:Engine.advance", "the protocol, one line a section"),
            ("coordinator", "coordinator/rounds/phases.py:answers_suffice", "open, end or wait: a pure function"),
            ("coordinator", "coordinator/rounds/engine.py:Engine.open", "makes the statement"),
            ("both", "common/ledger/cohort.py:draw_cohort", "who is in it"),
            ("both", "common/ledger/cohort.py:round_seed", "its seed"),
        ),
        calls=(follow(entry),),
        dumps=(Dump("Payload:", entry.shown),),
    )


def base_model(ledger: TourLedger) -> Step:
    return Step(
        "The base model comes down",
        (
            """The agent works on the round. First it fetches the model that the round starts from. The leaf list is
            checked against the root that the statement names, then each chunk against its leaf, before it is written.
            Reading is authorised by statement: the digest alone gives nobody a blob.""",
        ),
        passes=(
            ("participant", "participant/agent.py:Agent.work", "a round at an institution, on one screen"),
            ("participant", "common/wire/transfer.py:download", "resumes at the chunk, whatever the connection does"),
            ("coordinator", "coordinator/access.py:may_read_model", "does a statement give this member this blob?"),
            (
                "coordinator",
                "coordinator/api/blobs.py:BlobsServicer.Get",
                "from the store to the stream, 4 MiB at a time",
            ),
            ("participant", "common/blobs/upload.py:Upload.write", "checks the chunk, writes it"),
            ("participant", "participant/bench/workbench.py:Workbench.place_base", "into the job folder, by hard link"),
        ),
        calls=download(ledger.plan.initial.model, "model"),
    )


def training(ledger: TourLedger) -> Step:
    return Step(
        "The worker measures and trains",
        (
            """The worker first measures the base model on documents that it never trains on, then trains, and writes
            the delta: after minus before, for every trainable tensor. Small messages pass a private socket, tensors
            pass the job folder. Losses are whole numbers, nats × 65,536, so that sums are exact.""",
            """(In this tour the worker is the tests' null worker: it speaks the protocol, trains nothing and makes up
            its numbers. The code below is what the real one passes.)""",
        ),
        passes=(
            (
                "participant",
                "participant/bench/workbench.py:Workbench.train",
                "asks the worker, waits, or gives the round up",
            ),
            ("participant", "participant/bench/worker_link.py:WorkerLink", "the worker's process, socket and lifeline"),
            ("worker", "participant/worker/session.py:Session.run", "one message at a time"),
            (
                "worker",
                "participant/worker/rounds.py:train_round",
                "a round, resumed from a snapshot where there is one",
            ),
            ("worker", "llmasos/evaluation/perplexity.py:evaluate", "held-out loss of the base model"),
            ("worker", "llmasos/training/loop.py:LocalTraining.run_round", "the steps"),
            ("worker", "llmasos/models/tensors.py:write_delta", "the blob's very bytes, in manifest order"),
        ),
        dumps=(Dump("On the private socket:", ledger.worker_said("train", "progress", "result"), "text"),),
    )


def report(ledger: TourLedger) -> Step:
    progress = next(line["message"] for line in ledger.recording.worker if line["message"]["type"] == "progress")
    activity = ActivityReport(
        ledger.recording.run,
        progress["round"],
        progress["activity"],
        steps_done=progress["steps_done"],
        steps_total=progress["steps_total"],
        tokens_done=progress["tokens_done"],
        bytes_down=ledger.plan.initial.model.size,
    )
    request, reply = convert.report_to_wire(activity), work_pb2.ReportResponse(round_open=True)
    return Step(
        "Meanwhile: reports",
        (
            """Every second the agent tells how far it is. A report is neither signed nor kept. It renews the
            institution's lease: a round that has its quorum does not wait for who was silent longer than that. The
            reply says whether the round is still open, so that nobody trains for nothing.""",
        ),
        passes=(
            (
                "participant",
                "participant/reporter.py:RoundReporter",
                "a thread of its own, so that long steps keep the lease",
            ),
            ("coordinator", "coordinator/api/work.py:WorkServicer.Report", "decodes, calls, encodes"),
            ("coordinator", "coordinator/watching/board.py:Board.report", "in memory only; `run watch` reads it"),
        ),
        calls=(Call("Work.Report", request.ByteSize(), reply.ByteSize(), "progress"),),
        dumps=(Dump("A report with the progress above:", str(request).strip(), "text"),),
    )


def signed(ledger: TourLedger) -> Step:
    entry, row = ledger.of(Kind.CONTRIBUTION, ledger.recording.institution), ledger.recording.signed[0]
    what, _, opening = row["slot"].partition("/")
    return Step(
        "The contribution is signed",
        (
            """Of the training, only progress numbers have left the house so far. The agent moves the delta into its
            blob store, which gives it its root, and signs a contribution that names it. The metrics are not in it:
            the statement holds SHA-256(salt || metrics), so that the ledger binds the institution and shows nothing.""",
            """Statement, metrics and salt go into the journal before they are sent. The slot is this round's opening.
            One slot, one signature, ever: after a crash the agent finds the row and sends the same bytes.""",
        ),
        passes=(
            ("participant", "participant/sending.py:Outbox.sign_contribution", "the order of this step"),
            ("participant", "common/blobs/store.py:FolderBlobStore.ingest", "hashes the delta, keeps it durably"),
            ("participant", "common/statements/envelope.py:sign", "Ed25519 over the DSSE encoding of the payload"),
            ("participant", "participant/memory/journal.py:Journal.sign", "one row a slot"),
        ),
        dumps=(
            Dump("Payload:", entry.shown),
            Dump("The journal's row, without the envelope:", pretty(row | {"slot": f"{what}/{short(opening)}"})),
        ),
    )


def sent(ledger: TourLedger) -> Step:
    recording = ledger.recording
    entry = ledger.of(Kind.CONTRIBUTION, recording.institution)
    ref = ledger.plan.initial.model.model_validate(entry.predicate["blobs"]["delta"])
    purpose = Purpose(round_opened=ledger.first(Kind.ROUND_OPENED).statement.digest)
    rows = [[each["at"], each["kind"], f"{each['bytes']:,}", short(each["digest"])] for each in recording.egress]
    return Step(
        "Delta, then contribution, go up",
        (
            """The delta goes first. The coordinator takes it because a round names this member and the size is the
            manifest's, and checks each chunk as it comes. Then the contribution, with metrics and salt beside it. All
            rules are checked in the call's own thread: sender, signature, parent, slot, weight, commitment, and the
            delta itself, read again from disk: same tensors, all finite, norm within the plan's bound. The engine's
            thread appends it and keeps the metrics in a table of their own, in one transaction.""",
        ),
        passes=(
            ("participant", "participant/sending.py:Outbox.send_contribution", "delta first, statement last"),
            ("participant", "common/wire/transfer.py:upload", "asks what is missing, sends that"),
            ("coordinator", "coordinator/access.py:BlobAccess.check_write", "open round, cohort, exact size"),
            ("coordinator", "coordinator/api/intake.py:Intake.begin", "quota, and where an upload goes on"),
            ("coordinator", "common/blobs/upload.py:Upload.write", "checks the chunk against its leaf"),
            ("coordinator", "coordinator/desk.py:CommandDesk.submit", "all rules, cheap ones first"),
            ("coordinator", "coordinator/watching/metrics.py:metrics_row", "metrics and salt against the commitment"),
            ("coordinator", "common/reduce/inspect.py:inspect_delta", "the delta's bytes"),
            (
                "coordinator",
                "coordinator/store/database.py:Transaction.append",
                "one transaction, durable before visible",
            ),
        ),
        calls=(*upload(ref, purpose, "delta"), submit(entry, ledger.metrics(1))),
        dumps=(
            Dump("The metrics, beside the statement:", recording.signed[0]["metrics"]),
            Dump(
                f"""Everything that left {recording.institution} in this run stands in the journal's table `egress`
                (the last row is the evaluation at the run's end):""",
                table(["at", "kind", "bytes", "digest"], rows),
                "",
            ),
        ),
    )


STEPS = (opened, base_model, training, report, signed, sent)
