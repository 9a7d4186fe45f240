"""The tour from the first key to the answers: who the parties are, and what they agree to do."""

from __future__ import annotations

from common import strict_json
from common.statements.kinds import Kind
from common.wire.messages import Purpose
from common.wire.v1 import operations_pb2
from scripts.tour.ledger import TourLedger, download, follow, submit, upload
from scripts.tour.markdown import Call, Dump, Step, short, wrapped


def genesis(ledger: TourLedger) -> Step:
    entry = ledger.first(Kind.GENESIS)
    return Step(
        "The genesis: where trust begins",
        (
            f"""`llmasos-coordinator init` makes a certificate authority, the coordinator's keys, and the first
            statement. It is entry 0 of the ledger. Its parent is the CA certificate, so certificates and ledger
            cannot be exchanged for others. The SHA-256 of its payload, `{short(entry.statement.digest)}`, is the
            consortium's fingerprint: `init` and `join` print it, and people compare it.""",
        ),
        passes=(
            ("operator", "coordinator/members/founding.py:found", "makes the home folder and all that is in it"),
            ("operator", "common/identity/authority.py:Authority.create", "the CA: P-256, for this consortium alone"),
            ("operator", "common/statements/envelope.py:sign", "predicate and parent become payload and envelope"),
            ("operator", "coordinator/ledger.py:Ledger", "entry 0, and entry 1: a roster with the operator alone"),
        ),
        dumps=(Dump("Payload:", entry.shown),),
    )


def roster(ledger: TourLedger) -> Step:
    recording, entry = ledger.recording, ledger.all(Kind.ROSTER)[-1]
    enrol = Call(
        "Enrolment.Enrol", recording.enrolment["request"], recording.enrolment["reply"], "keys up, certificate down"
    )
    return Step(
        "The roster: who may speak",
        (
            """An operator's `institution invite` prints an invitation: addresses, a secret, and the genesis. The
            institution's `join` checks the genesis before it connects, makes its keys, and redeems the secret on the
            enrolment listener, the only one that takes callers without a certificate. The coordinator answers with a
            TLS certificate and appends a roster that names the new member.""",
            """From here on this roster decides. Who calls is the member whose certificate stands in it, and a
            statement counts only under the signing key that stands in it. TLS keys and signing keys are different
            keys.""",
        ),
        passes=(
            ("operator", "coordinator/commands/institutions.py:invite", "the command"),
            ("coordinator", "coordinator/members/enrolment.py:EnrolmentDesk.invite", "keeps the SHA-256 of the secret"),
            ("participant", "participant/joining.py:join", "the command's work: keys, request, home folder"),
            ("participant", "common/identity/invitation.py:open_genesis", "signature, parent and CA of the genesis"),
            ("coordinator", "coordinator/api/enrolment.py:EnrolmentServicer.Enrol", "decodes the call"),
            (
                "coordinator",
                "coordinator/members/enrolment.py:EnrolmentDesk.enrol",
                "secret, proof of the key, certificate, roster",
            ),
        ),
        calls=(enrol,),
        dumps=(Dump(f"Payload of entry {entry.index}, after all three have joined:", entry.shown),),
    )


def plan(ledger: TourLedger) -> Step:
    entry, statement = ledger.first(Kind.PLAN), ledger.plan
    purpose = Purpose(plan=statement.run)
    draft = strict_json.dumps(statement.model_dump(mode="json"))
    request = operations_pb2.StartRunRequest(plan_json=draft).ByteSize()
    start = Call(
        "Operations.StartRun", request, operations_pb2.StartRunResponse(run=statement.run).ByteSize(), "the draft"
    )
    return Step(
        "The plan: what is to be trained",
        (
            """`llmasos plan prepare` turns a YAML file into a folder: initial weights, tokenizer, and a draft that
            names both by digest and lists every tensor in the order of its bytes. `run start` sends the two blobs,
            then the draft. The coordinator checks the model against the list, signs the draft as a plan statement and
            appends it. That is all: nobody is called. The plan waits in the ledger.""",
            """(The draft of this tour has three small tensors of its own instead of a GPT's, so that it fits a page.)""",
        ),
        passes=(
            ("operator", "llmasos/preparation.py:prepare", "weights, tokenizer, manifest; needs torch"),
            ("operator", "coordinator/commands/runs.py:start", "the command"),
            ("coordinator", "coordinator/api/blobs.py:BlobsServicer.Put", "takes the blobs, chunk by chunk"),
            ("coordinator", "coordinator/access.py:BlobAccess.check_write", "only an operator sends blobs for a plan"),
            ("coordinator", "coordinator/desk.py:CommandDesk.start_run", "blobs whole, tensors as listed, all finite"),
            ("coordinator", "common/ledger/rules.py:admit_verified", "may this statement come next?"),
            ("coordinator", "coordinator/ledger.py:Ledger.append", "signed and durable, then visible"),
        ),
        calls=(
            *upload(statement.initial.model, purpose, "model"),
            *upload(statement.initial.tokenizer, purpose, "tokenizer"),
            start,
        ),
        dumps=(Dump("Payload; every default of the plan is written out:", entry.shown),),
    )


def reading(ledger: TourLedger) -> Step:
    return Step(
        "Every participant reads the ledger",
        (
            """A participant's agent asks for ledger entries from the one that it lacks; the coordinator answers when
            there is one. Each entry is verified in order: canonical form, the one signature under the one key that
            the roster gives, the parent, and the rules of its kind. Only then is it stored, and only what is stored
            is acted on. An entry that does not follow stops the participant.""",
            """The same function decides on both sides: the coordinator runs it before it appends. So nobody depends
            on the other's care.""",
        ),
        passes=(
            ("participant", "participant/follower.py:Follower", "one long poll after the other, in its own thread"),
            (
                "coordinator",
                "coordinator/api/doors.py:WorkDoor.admit",
                "whose certificate is this, by the newest roster?",
            ),
            ("coordinator", "coordinator/api/work.py:WorkServicer.Follow", "waits for the ledger to grow"),
            ("participant", "participant/memory/mirror.py:Mirror.admit", "verifies, keeps, believes"),
            ("both", "common/ledger/rules.py:admit", "form, signer, parent, the rules of the kind"),
            ("both", "common/ledger/state.py:LedgerState", "what the ledger says, as a value that never changes"),
            ("participant", "participant/memory/journal.py:Journal.keep", "the participant's own copy"),
        ),
        calls=(follow(ledger.first(Kind.PLAN)),),
    )


def answer(ledger: TourLedger) -> Step:
    name = ledger.recording.institution
    entry = ledger.of(Kind.ANSWER, name)
    envelope = ledger.recording.ledger[entry.index]["envelope"]
    return Step(
        f"The answer of {name}",
        (
            """The agent finds that a plan awaits an answer. It asks the institution's policy, a YAML file. If the
            policy has nothing against the plan, the worker reads, splits and tokenises the data, so that an
            institution with too little of it says so now. The answer is signed, written into the journal, then sent:
            after a crash the same bytes go again.""",
            f"""The worker is a process of its own that has the data and torch, and neither keys nor network. HOME and
            DATA stand for the participant's home and {name}'s folder of text.""",
        ),
        passes=(
            ("participant", "participant/tasks.py:next_task", "what is to do, from ledger and journal alone"),
            ("participant", "participant/agent.py:Agent.answer", "the order of this step"),
            ("participant", "participant/policy/rules.py:judge", "every rule of the policy that the plan breaks"),
            (
                "participant",
                "participant/bench/workbench.py:Workbench.prepare",
                "job folder, and the message to the worker",
            ),
            ("worker", "participant/worker/job.py:prepare_job", "reads, splits, tokenises, builds the model"),
            ("participant", "participant/sending.py:Outbox.sign_answer", "signs"),
            ("participant", "participant/memory/journal.py:Journal.sign", "one row a slot, before anything is sent"),
            ("coordinator", "coordinator/api/interceptor.py:Interceptor", "admission, and errors to gRPC status"),
            ("coordinator", "coordinator/api/work.py:WorkServicer.Submit", "decodes, calls, encodes"),
            ("coordinator", "coordinator/desk.py:CommandDesk.submit", "sender, signature, rules, in the call's thread"),
            ("coordinator", "coordinator/rounds/engine.py:Engine.call", "hands the effect to the engine's one thread"),
            ("coordinator", "coordinator/ledger.py:Ledger.take", "verifies once more, appends the very bytes"),
        ),
        calls=(*download(ledger.plan.initial.tokenizer, "tokenizer"), submit(entry)),
        dumps=(
            Dump(
                "On the private socket between agent and worker:",
                ledger.worker_said("hello", "prepare", "prepared"),
                "text",
            ),
            Dump("Payload of the answer:", entry.shown),
            Dump(
                f"""And the whole envelope, the {len(envelope.encode()):,} bytes that are signed, sent and stored. It
                is one line, broken here for the page. `payload` is the base64 of the canonical JSON above, `keyid`
                the SHA-256 of the public key, `sig` the Ed25519 signature:""",
                wrapped(envelope),
                "text",
            ),
        ),
    )


STEPS = (genesis, roster, plan, reading, answer)
