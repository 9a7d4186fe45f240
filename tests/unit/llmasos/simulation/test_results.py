"""What was measured, and how it is told in a terminal and to programs."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from llmasos.evaluation import measured
from llmasos.evaluation.metrics import likelihood
from llmasos.simulation.report_json import report, write_report_json
from llmasos.simulation.result import SimulationResult
from llmasos.simulation.results import Scores, better_alone, by_rounds_trained, scores_from_sums, scores_of
from llmasos.simulation.table import explanations, print_results, shown, table_rows, verdict
from llmasos.simulation.watch import Evaluation
from tests.support.simulated import a_statement, some_results


def test_each_round_measures_the_model_before_it_and_the_last_round_the_final_one() -> None:
    curve = by_rounds_trained(some_results().view.rounds)
    assert [trained for trained, _ in curve] == [0, 1, 2]
    assert [round(math.log(scores.pooled), 2) for _, scores in curve] == [6.1, 5.1, 4.1]


def test_pooled_perplexity_is_that_of_the_summed_losses() -> None:
    scores = scores_from_sums({"north": (2**16 * 100, 100), "south": (2**16 * 900, 300)})
    assert scores.institutions["north"] == pytest.approx(math.e)
    assert scores.pooled == pytest.approx(math.exp(1000 / 400))


def test_without_a_pooled_evaluation_the_institutions_are_summed() -> None:
    own = tuple(Evaluation(scope=name, loss_sum_fixed=2**16 * 10, num_tokens=10) for name in ("north", "south"))
    assert scores_of(own) == Scores(math.e, {"north": math.e, "south": math.e})
    assert scores_of(()) is None


def test_the_best_model_alone_is_the_one_best_on_everybodys_text() -> None:
    assert some_results().best_alone == ("south", 80.0)


def test_an_institution_that_is_better_off_alone_is_named() -> None:
    assert better_alone(some_results()) == ["north"]
    assert verdict(some_results()).endswith("Better off alone on their own text: north.")


def test_the_verdict_compares_with_the_best_alone() -> None:
    told = verdict(some_results())
    assert "federated model has perplexity 60.34: 0.75 × that of the best model trained alone (south, 80.00)." in told


def test_without_baselines_the_verdict_is_the_perplexity() -> None:
    assert verdict(some_results(comparison=None)) == "The federated model has perplexity 60.34 on all held-out text."
    assert verdict(some_results(federated=None)) == "The final model was not measured."


def test_a_row_holds_own_text_alone_then_all_text_then_federated_then_pooled_data() -> None:
    rows = table_rows(some_results())
    assert rows[0] == ("north", "50.00", "90.00", "54.60", "50.00", "60.00", "alone")
    assert rows[1] == ("south", "70.00", "80.00", "60.34", "55.00", "65.00", "federated")
    assert rows[-1] == ("all of them, pooled", "-", "best: 80.00", "60.34", "55.00", "65.00", "federated")


def test_missing_numbers_are_dashes() -> None:
    assert table_rows(some_results(comparison=None, federated=None, ngram=None))[0] == ("north", *"------")


def test_without_baselines_the_table_has_no_empty_columns() -> None:
    out = io.StringIO()
    print_results(some_results(comparison=None), Path("out"), Console(file=out, width=80))
    assert "federated" in out.getvalue()
    assert "alone" not in out.getvalue()
    assert "54.60" in out.getvalue()


def test_counting_has_a_column_with_and_without_baselines_and_says_what_it_is() -> None:
    with_baselines, without = some_results(), some_results(comparison=None)
    assert shown(with_baselines, table_rows(with_baselines)[0])[5] == "60.00"
    assert shown(without, table_rows(without)[0]) == ("north", "54.60", "60.00")
    assert "modified Kneser-Ney of order 5 over everybody's training text (12,345 tokens)" in " ".join(
        explanations(without)
    )
    uncounted = some_results(ngram=None)
    assert shown(uncounted, table_rows(uncounted)[0]) == ("north", "50.00", "90.00", "54.60", "50.00", "alone")


def test_the_upper_bound_is_explained_precisely() -> None:
    told = " ".join(explanations(some_results()))
    assert "the same steps with 2 × 3 = 6 sequences a step" in told
    assert "the same 4 optimizer steps, seed 0, cosine schedule and initial weights" in told


def test_the_printed_result_fits_in_80_columns_and_names_what_to_try_next() -> None:
    out = io.StringIO()
    names = ("networking", "text-and-email", "data-and-numbers")
    print_results(some_results(institutions=names), Path("out/demo"), Console(file=out, width=80))
    assert "data-and-numbers" in out.getvalue()
    assert max(len(line) for line in out.getvalue().splitlines() if "llmasos" not in line) <= 80
    assert "llmasos generate out/demo/model 'import '" in out.getvalue()


def test_control_characters_of_a_sample_do_not_reach_the_terminal() -> None:
    out = io.StringIO()
    results = some_results(sample_text="x\x1b[2Jy\x07z[red]")
    print_results(results, Path("out"), Console(file=out, width=80))
    assert "\x1b" not in out.getvalue()
    assert "\x07" not in out.getvalue()
    assert "[red]" in out.getvalue()


def test_the_report_for_programs_keeps_its_keys(tmp_path: Path) -> None:
    write_report_json(some_results(), model=Path("out/demo/model"), file=tmp_path / "report.json")
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["alone"] == {"north": 90.0, "south": 80.0, "west": 85.0}
    assert told["alone_own"] == {"north": 50.0, "south": 70.0, "west": 75.0}
    assert told["pooled_data"]["pooled"] == 55.0
    assert told["ngram"]["perplexity"]["pooled"] == 65.0
    assert (told["ngram"]["order"], told["ngram"]["counted_tokens"], told["ngram"]["left_out_tokens"]) == (5, 12_345, 0)
    assert told["final"]["digest"] == "blake3:" + "ab" * 32
    assert told["final"]["path"] == "out/demo/model"
    assert told["final"]["perplexity"]["pooled"] == pytest.approx(60.34, abs=0.01)
    assert told["rounds"][-1]["perplexity"]["pooled"] == told["final"]["perplexity"]["pooled"]
    assert set(told["rounds"][0]) >= {"round", "perplexity", "cohort", "seconds", "bytes_up", "bytes_down", "outcome"}
    assert told["seconds"] == 31.0
    assert told["plan"]["name"] == "tiny"
    assert told["versions"] == {"python": "3.11.7"}


def test_infinite_numbers_become_null() -> None:
    told = report(some_results(federated=Scores(math.inf, {"north": math.nan})), model=Path("m"))
    assert told["final"]["perplexity"] == {"pooled": None, "institutions": {"north": None}}


def test_equal_steps_count_committed_rounds_only() -> None:
    results = some_results(statement=a_statement(local={"steps": 5, "batch_size": 2, "sequence_length": 16}))
    assert results.steps == 10


def test_all_measures_of_the_task_are_told_by_institution_and_pooled(tmp_path: Path) -> None:
    def scores(tokens: int, accuracy: float) -> measured.Scores:
        return measured.Scores(
            tokens, likelihood(nats=9.0, tokens=tokens, words=0, text_bytes=0), accuracy, {"f1": math.nan}
        )

    found = measured.Evaluation(
        split="held-out",
        task="question-answering",
        whole=scores(30, 0.5),
        languages={"north": scores(10, 0.75), "south": scores(20, 0.375)},
        intervals={},
        interval_unit="rows",
        counted=None,
        seconds=1.0,
        sequence_length=32,
        device="cpu",
    )
    results, out = some_results(measured=found), io.StringIO()
    print_results(results, Path("out"), Console(file=out, width=80))
    assert "0.375" in out.getvalue()
    write_report_json(results, model=tmp_path / "model", file=tmp_path / "report.json")
    rows = SimulationResult.load(tmp_path).measures
    assert [(row["institution"], row["accuracy"], row["f1"]) for row in rows] == [
        ("north", 0.75, None), ("south", 0.375, None), ("pooled", 0.5, None),
    ]  # fmt: skip
    write_report_json(some_results(), model=tmp_path / "model", file=tmp_path / "report.json")
    assert SimulationResult.load(tmp_path).measures == []
