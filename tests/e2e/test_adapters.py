"""A run that trains LoRA: the adapter alone travels up, the chunks that hold it travel down, and every round is verified."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from common.blobs.reference import CHUNK_BYTES
from common.codecs import codec
from common.tensors import delta_size, model_size, trainable_elements
from common.terminal import exit_code_of
from coordinator.cli import app as operators_app
from participant.config import HomeLayout
from participant.memory.journal import Journal
from participant.policy import estimate
from tests.independent.verify_bundle import Verdict
from tests.support.drafts import Draft
from tests.support.federations import Federation
from tests.support.texts import make_institutions

pytestmark = pytest.mark.torch

NAMES = ("bank", "clinic")
ROUNDS = 2
MODEL = {
    "type": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "hidden_size": 64,
    "intermediate_size": 10000,
    "max_position_embeddings": 16,
}
"""16 MB of frozen tensors that cost little to train beside."""
LOCAL = {"steps": 2, "batch_size": 2, "sequence_length": 16, "optimizer": {"type": "adamw", "learning_rate": "0.01"}}


def sent(federation: Federation, name: str) -> list[int]:
    """Bytes of each delta that left, by the institution's own books."""
    with closing(Journal(HomeLayout(federation.home(name)).journal)) as journal:
        return [entry.bytes for entry in journal.egress() if entry.kind == "delta"]


def fetched(federation: Federation) -> list[int]:
    """Bytes of models that all participants together fetched in each round, by their own word."""
    with federation.operator() as session:
        (view,) = session.runs()
    return [record.bytes_down for record in view.rounds]


def test_only_the_adapter_travels_and_every_round_is_verified(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from llmasos.preparation import load_prepared
    from tests.support.jobs import a_training_plan, make_prepared

    adapter = {"type": "lora", "r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    plan = a_training_plan(
        model=MODEL,
        adapter=adapter,
        local=LOCAL,
        rounds=ROUNDS,
        quorum=2,
        codec={"type": "int8"},
        evaluation={"max_tokens": 64},
    )
    prepared = load_prepared(make_prepared(tmp_path / "plan", plan))
    draft = prepared.draft
    size, adapter_bytes = model_size(draft.manifest), 4 * trainable_elements(draft.manifest)
    assert size > 3 * CHUNK_BYTES
    assert adapter_bytes < CHUNK_BYTES / 4
    with Federation(tmp_path / "federation", NAMES, min_quorum=2, worker=None) as federation:
        texts = make_institutions(tmp_path / "text", count=2)
        for name in NAMES:
            texts[name].rename(federation.data(name) / "texts")
        federation.start_participants()
        ended = federation.wait_until_ended(federation.start_run(Draft(draft, prepared.folder)))
        assert [record.closed.outcome for record in ended.rounds if record.closed] == ["committed"] * (ROUNDS + 1)

        delta = codec(plan.codec).encoded_size(draft.manifest)
        assert delta < 0.27 * delta_size(draft.manifest) < adapter_bytes
        assert [sent(federation, name) for name in NAMES] == [[delta] * ROUNDS] * 2
        # Round 1 fetches all; round 2 and the last evaluation the one chunk with header and adapter.
        first, *later = fetched(federation)
        assert first == 2 * size
        assert len(later) == ROUNDS
        assert all(0 < moved <= 2 * CHUNK_BYTES for moved in later), later
        moved = draft.initial.tokenizer.size + (first + sum(later)) // 2 + ROUNDS * delta
        assert moved <= estimate(draft).traffic_bytes < 2 * size, "what was foretold, and far less than models"

        initial, final = federation.blob(draft.initial.model), federation.blob(ended.model)
        frozen = size - 4 * sum(tensor.elements for tensor in draft.manifest if tensor.group == "frozen")
        assert final != initial
        assert final[frozen:] == initial[frozen:], "frozen tensors stay as they are"

        home = str(federation.coordinator_home)
        assert exit_code_of(operators_app, ["verify", ended.run, "--home", home]) == 0
        bundle = tmp_path / "run.evidence"
        assert exit_code_of(operators_app, ["evidence", "export", str(bundle), "--with-deltas", "--home", home]) == 0
        verdict = Verdict(bundle.read_bytes())
        assert verdict.failed == [], "the second verifier computes each model again, too"
        assert {section for section, _ in verdict.gaps}.isdisjoint({"rounds", "contents", "lineage"})
