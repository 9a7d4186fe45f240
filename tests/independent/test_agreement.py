"""Two verifiers, of which one was written from docs/protocol.md alone, find the same in good bundles and in spoilt ones.

Where they part, the page, `common/verify` or the second verifier is wrong: see which, and mend that one.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from common.evidence.select import Holdings, select
from common.identity.authority import Authority
from tests.independent import spoiling
from tests.independent.arithmetic import outputs
from tests.independent.forging import (
    CONTROLS,
    DELTAS,
    OPTIMIZERS,
    TOKENS,
    WEIGHTINGS,
    WITNESSES,
    Draft,
    Forge,
    a_script,
    made,
    public,
    steered,
    weighted,
    weighted_models,
)
from tests.independent.verify_bundle import Verdict, main
from tests.support.evidence import a_ledger as a_made_ledger
from tests.support.evidence import bundle, failures, gaps, report_on
from tests.support.statements import NOW

PINS = {name: public(name) for name in WITNESSES}
GAPS = {
    "a contribution without a checkpoint",
    "a leave dated back",
    "a leave dated forward",
    "no checkpoint",
    "a checkpoint of the middle alone",
    "no majority anywhere",
    "no majority at the end",
    "the second run withheld",
    "an attestation withheld",
    "a cosignature twice",
    "a cosignature twice at two times",
    "a signature of the log twice",
    "no metrics",
    "no blobs",
    "no base model",
    "a delta that lacks",
}
"""What leaves a bundle without a failure: something is not shown, or is said twice, or one of two clocks is wrong."""


@cache
def authority() -> tuple[bytes, str]:
    pem = Authority.create("hospitals", now=NOW).certificate_pem
    return pem, hashlib.sha256(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)).hexdigest()


def a_forge(*changes: Callable[[list[Draft]], None], downlink: str | None = None, optimizer: str = "sgd") -> Forge:
    script = a_script(*authority(), downlink, optimizer)
    for change in changes:
        change(script)
    return Forge(script, downlink, optimizer)


def both(data: bytes, forge: Forge, folder: Path) -> tuple[str, set[str], set[str]]:
    """What both verifiers find: the result, the sections that failed, and those with gaps.

    A history that breaks off ends the second verifier, while ours goes on as far as it can.
    """
    (folder / "bundle").write_bytes(data)
    report = report_on(folder / "bundle", forge.digests[0], PINS)
    failed, lacking = ({name for name, _ in found(report)} for found in (failures, gaps))
    verdict = Verdict(data, forge.digests[0], PINS)
    other_failed, other_lacking = verdict.sections
    assert verdict.result == report.outcome.value, (failures(report), verdict.failed)
    assert other_failed <= failed, (failures(report), verdict.failed)
    assert failed or other_lacking == lacking
    return verdict.result, other_failed, lacking


def test_a_good_bundle_is_good_for_both(tmp_path: Path) -> None:
    forge = a_forge()
    assert both(forge.bundle(), forge, tmp_path) == ("verified-with-gaps", set(), {"lineage"})  # a run that goes on
    ended = a_forge(lambda script: script.__delitem__(slice(32, None)))
    assert both(ended.bundle(), ended, tmp_path) == ("verified", set(), set())


@pytest.mark.parametrize("downlink", ["float32", "bfloat16", "int8", "int4"])
def test_a_good_bundle_of_a_run_with_a_downlink_is_good_for_both(downlink: str, tmp_path: Path) -> None:
    forge = a_forge(lambda script: script.__delitem__(slice(32, None)), downlink=downlink)
    assert both(forge.bundle(), forge, tmp_path) == ("verified", set(), set())


@pytest.mark.parametrize("downlink", [None, "int8"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_good_bundle_of_a_run_with_a_server_optimizer_is_good_for_both(
    optimizer: str, downlink: str | None, tmp_path: Path
) -> None:
    forge = a_forge(lambda script: script.__delitem__(slice(32, None)), downlink=downlink, optimizer=optimizer)
    assert both(forge.bundle(), forge, tmp_path) == ("verified", set(), set())


def a_weighted_forge(kind: str, *changes: Callable[[list[Draft]], None]) -> Forge:
    forge = a_forge(weighted(kind), *changes, lambda script: script.__delitem__(slice(32, None)))
    old = (made().first[0], made().second[0])
    forge.blobs = [*(each for each in forge.blobs if each not in old), *weighted_models(kind)]
    return forge


@pytest.mark.parametrize("kind", WEIGHTINGS)
def test_a_good_bundle_of_a_run_with_another_weighting_is_good_for_both(kind: str, tmp_path: Path) -> None:
    forge = a_weighted_forge(kind)
    assert both(forge.bundle(), forge, tmp_path) == ("verified", set(), set())


@pytest.mark.parametrize("num_bytes", [None, 0, 69])
def test_bytes_that_a_plan_does_not_imply_fail_for_both(num_bytes: int | None, tmp_path: Path) -> None:
    def change(script: list[Draft]) -> None:
        script[12].body["weight"]["num_bytes"] = num_bytes

    forge = a_weighted_forge("bytes", change)
    result, failed, _ = both(forge.bundle(), forge, tmp_path)
    assert (result, failed) == ("failed", {"history"})


def a_steered_forge(*changes: Callable[[list[Draft]], None]) -> Forge:
    forge = a_forge(steered, *changes)
    forge.sizes[len(forge.entries)] = forge.sizes.pop(39)
    forge.blobs += [outputs(forge.script[6].body, made().second[0], [(TOKENS[k], DELTAS[1, k]) for k in (0, 1)])[0]]
    return forge


def test_a_run_that_was_rolled_back_and_extended_is_good_for_both(tmp_path: Path) -> None:
    forge = a_steered_forge()
    assert both(forge.bundle(), forge, tmp_path) == ("verified", set(), set())


@pytest.mark.parametrize("name", spoiling.STEERING)
def test_both_find_what_is_wrong_with_a_run_that_was_steered(name: str, tmp_path: Path) -> None:
    forge = a_steered_forge(spoiling.STEERING[name])
    result, failed, _ = both(forge.bundle(), forge, tmp_path)
    assert (result, failed) == ("failed", {"history"})


def test_a_good_bundle_of_a_run_with_scaffold_is_good_for_both(tmp_path: Path) -> None:
    forge = a_forge(lambda script: script.__delitem__(slice(32, None)), optimizer="scaffold")
    assert both(forge.bundle(), forge, tmp_path) == ("verified", set(), set())


@pytest.mark.parametrize("name", spoiling.SCAFFOLDS)
def test_both_find_what_is_wrong_with_control_variates(name: str, tmp_path: Path) -> None:
    forge = a_forge(spoiling.SCAFFOLDS[name], optimizer="scaffold")
    forge.blobs += [spoiling.INFINITE, DELTAS[2, 0]]
    result, failed, _ = both(forge.bundle(), forge, tmp_path)
    assert result == "failed"
    assert ("rounds" if "control that" in name else "history") in failed


def test_for_both_a_round_whose_control_lacks_is_a_gap_where_nobody_attests(tmp_path: Path) -> None:
    forge = a_forge(spoiling.edit(6, "plan.delta_audience", []), optimizer="scaffold")
    forge.blobs.remove(CONTROLS[1, 0])
    assert "rounds" in both(forge.bundle(), forge, tmp_path)[2]


@pytest.mark.parametrize("name", spoiling.DOWNLINKS)
@pytest.mark.parametrize("optimizer", ["sgd", "yogi"])
def test_both_find_what_is_wrong_with_what_a_downlink_makes(name: str, optimizer: str, tmp_path: Path) -> None:
    forge = a_forge(spoiling.DOWNLINKS[name], downlink="int8", optimizer=optimizer)
    result, failed, _ = both(forge.bundle(), forge, tmp_path)
    assert result == "failed"
    assert ("rounds" if name.startswith("another") else "history") in failed


def test_for_both_a_round_whose_server_state_lacks_is_a_gap_where_nobody_attests(tmp_path: Path) -> None:
    forge = a_forge(spoiling.edit(6, "plan.delta_audience", []), downlink="int8")
    state = made("int8").first[2]
    assert state is not None
    forge.blobs.remove(state)
    assert "rounds" in both(forge.bundle(), forge, tmp_path)[2]


@pytest.mark.parametrize("name", spoiling.SCRIPTS)
def test_both_find_what_was_signed_and_should_not_be(name: str, tmp_path: Path) -> None:
    forge = a_forge(spoiling.SCRIPTS[name])
    forge.blobs += [spoiling.RENAMED, spoiling.INFINITE] if "in a delta" in name or "a delta with" in name else []
    result, _, _ = both(forge.bundle(), forge, tmp_path)
    assert result == ("verified-with-gaps" if name in GAPS else "failed")


@pytest.mark.parametrize("name", spoiling.FILES)
def test_both_find_what_the_file_lacks_or_should_not_hold(name: str, tmp_path: Path) -> None:
    forge = a_forge()
    spoiling.FILES[name](forge)
    result, _, _ = both(forge.bundle(), forge, tmp_path)
    assert result == ("verified-with-gaps" if name in GAPS else "failed")


@pytest.mark.parametrize("name", spoiling.BYTES)
def test_both_take_one_spelling_of_the_file(name: str, tmp_path: Path) -> None:
    forge = a_forge()
    assert both(spoiling.BYTES[name](forge.bundle()), forge, tmp_path)[:2] == ("failed", {"evidence"})


def test_an_equal_stands_in_for_a_delta_where_the_plan_shows_it_to_the_auditor(tmp_path: Path) -> None:
    results = Counter[bool]()
    for audience in (["audit"], []):
        forge = a_forge(spoiling.edit(6, "plan.delta_audience", audience))
        forge.blobs.remove(DELTAS[1, 0])
        results["rounds" in both(forge.bundle(), forge, tmp_path)[2]] += 1
    assert results == {True: 1, False: 1}


def test_a_bundle_that_our_own_writer_made_is_read(tmp_path: Path) -> None:
    """Entries of runs that nobody asked for are withheld: subtrees of several levels, cut where notes end."""
    ledger = a_made_ledger("alpha", "beta", "gamma")
    notes = [ledger.checkpoint(size, "east", "north") for size in (9, 17, 31, ledger.size)]
    for first in (0, 14, 26):
        data = bundle(select(Holdings(ledger.entries, notes), first))
        (tmp_path / "bundle").write_bytes(data)
        report = report_on(tmp_path / "bundle", ledger.fingerprint, ledger.pins)
        verdict = Verdict(data, ledger.fingerprint, ledger.pins)
        assert (verdict.result, verdict.sections) == (report.outcome.value, (set(), {name for name, _ in gaps(report)}))


def test_the_second_verifier_is_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forge = a_forge()
    (tmp_path / "bundle").write_bytes(forge.bundle())
    assert main(str(tmp_path / "bundle"), forge.digests[0]) == 4
    assert capsys.readouterr().out.endswith("gap: lineage: beta goes on\nverified-with-gaps\n")
    assert main(str(tmp_path / "bundle"), "00" * 32) == 1


def test_the_second_verifier_shares_no_code_with_ours() -> None:
    folder = Path(__file__).parent
    imported = {
        name
        for file in ("statements", "ledger", "bundle", "arithmetic", "verify_bundle")
        for node in ast.walk(ast.parse((folder / f"{file}.py").read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
    }
    ours = {name for name in imported if name.split(".")[0] in ("common", "coordinator", "participant", "tests")}
    assert {name for name in ours if not name.startswith("tests.independent.")} == set()
