"""What a simulation left in its folder, as a value: rounds as a DataFrame, a plot, the model; it shows itself in a notebook.

    result = llmasos.simulate("plan.yaml", institutions={"a": "./a", "b": "./b", "c": "./c"})
    result.rounds                   # pandas.DataFrame
    result.plot().save("rounds.svg")
    result.model().generate_text("The ")

Everything is read from OUT/report.json (llmasos.simulation.report_json), so `SimulationResult.load(out)` gives the same later.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import RunFailed, UsageError
from llmasos.charts import Chart, frame_of, shown, table_html
from llmasos.simulation.svg import Mark, Series, finite, line_chart

if TYPE_CHECKING:
    import pandas

    from llmasos.language_model.base import LanguageModel

COLUMNS = ("round", "task", "outcome", "perplexity", "contributors", "seconds", "bytes_up", "bytes_down")
"""Of `rounds`, and a column `perplexity_NAME` for each institution whose losses the plan lets be seen. `perplexity` is that of
the model which the round started from; the last round trains nothing and measures the final model. Seconds are wall time."""
_MARKS = (("pooled data", "pooled_data"), ("n-gram", "ngram"))
MAX_LINES = 12
"""Institutions with a line of their own in the plot."""


@dataclass(frozen=True, slots=True, repr=False)
class SimulationResult:
    """A finished simulation. `report` is report.json as it stands."""

    folder: Path
    report: Mapping[str, Any]

    @classmethod
    def load(cls, folder: str | Path) -> SimulationResult:
        """The simulation whose output folder that is.

        Raises:
            UsageError: it holds no report.
        """
        path = Path(folder) / "report.json"
        try:
            report = json.loads(path.read_bytes())
        except (OSError, ValueError) as err:
            raise UsageError(
                f"{path} is no report of a simulation: {str(err).splitlines()[0]}.", "Name the folder that --out named."
            ) from err
        if not isinstance(report, dict) or not isinstance(report.get("rounds"), list):
            raise UsageError(f"{path} is no report of a simulation.", "Name the folder that --out named.")
        return cls(Path(folder), report)

    @property
    def succeeded(self) -> bool:
        """Whether the run ended with a model."""
        return bool(self.report["succeeded"])

    @property
    def verified(self) -> bool:
        """Whether every party's own verification found nothing wrong."""
        found = self.report.get("verification")
        return found is not None and found["result"] != "failed"

    @property
    def institutions(self) -> tuple[str, ...]:
        """The institutions' names."""
        return tuple(self.report["institutions"])

    @property
    def perplexity(self) -> float | None:
        """The final model's on all held-out text; None if there is no model."""
        value: float | None = self.report["final"]["perplexity"]["pooled"]
        return value

    @property
    def measures(self) -> list[dict[str, Any]]:
        """The final model on what each institution holds out, and pooled, by all that the task has: a row each with
        `institution`, loss, accuracy, and bits_per_byte, macro_f1 or others; empty if there is no model."""
        found = self.report["final"].get("measures")
        if not found:
            return []
        return [
            {"institution": name, **values}
            for name, values in [*found["institutions"].items(), ("pooled", found["pooled"])]
        ]

    @property
    def alone(self) -> Mapping[str, float]:
        """By institution, the perplexity on all held-out text of a model of its own text only; empty without baselines."""
        return dict(self.report["alone"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rounds as dicts with COLUMNS, in order."""
        return [self._row(entry) for entry in self.report["rounds"]]

    @property
    def rounds(self) -> pandas.DataFrame:
        """The rounds as a DataFrame with COLUMNS.

        Raises:
            MissingExtra: pandas is not installed; `rows` needs nothing.
        """
        rows = self.rows
        return frame_of(rows, list(rows[0]) if rows else COLUMNS)

    def _row(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        scores = entry["perplexity"]
        row = {name: entry[name] for name in COLUMNS if name in entry}
        row |= {"perplexity": scores["pooled"], "contributors": len(entry["contributors"])}
        seen = {name for one in self.report["rounds"] for name in one["perplexity"]["institutions"]}
        return {name: row[name] for name in COLUMNS} | {
            f"perplexity_{name}": scores["institutions"].get(name) for name in self.institutions if name in seen
        }

    def plot(self) -> Chart:
        """Held-out perplexity by rounds trained, with what it is compared to, as an SVG that shows itself in a notebook."""
        curve = list(self._curve())
        lines = [Series("federated, pooled", finite([(x, y["pooled"]) for x, y in curve if y["pooled"]]), 0, wide=True)]
        for place, name in enumerate(self.institutions if len(self.institutions) <= MAX_LINES else ()):
            own = [(x, y["institutions"][name]) for x, y in curve if y["institutions"].get(name)]
            lines.append(Series(name, finite(own), 3 + place))
        title = "Held-out perplexity by rounds trained"
        drawn = [line for line in lines if line.points]
        svg = line_chart(
            drawn, list(self._marks()), title=title, x_label="rounds trained", y_label="perplexity, logarithmic"
        )
        return Chart(svg, title)

    def _curve(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        trained = 0
        for entry in self.report["rounds"]:
            yield trained, entry["perplexity"]
            trained += entry["task"] == "train" and entry["outcome"] == "committed"

    def _marks(self) -> Iterator[Mark]:
        for name, key in _MARKS:
            found = self.report.get(key)
            value = found and found.get("perplexity", found)["pooled"]
            if value:
                yield Mark(name, value)
        if self.alone:
            yield Mark("best alone", min(self.alone.values()))

    def model(self) -> LanguageModel:
        """The final model, to be measured, fitted on, or asked for text.

        Raises:
            RunFailed: the run ended without one.
        """
        from llmasos.language_model.families import load

        if not self.succeeded:
            raise RunFailed(f"The run ended without a model: {self.report['end_reason']}.", f"See {self.folder}/logs.")
        return load(self.folder / "model")

    def __repr__(self) -> str:
        trained = sum(row["task"] == "train" and row["outcome"] == "committed" for row in self.rows)
        what = f"{trained} rounds by {len(self.institutions)} institutions"
        if not self.succeeded:
            return f"SimulationResult(failed after {what}: {self.report['end_reason']}; {self.folder})"
        checked = "verified" if self.verified else "not verified"
        return f"SimulationResult({what}: perplexity {shown(self.perplexity)}, {checked}; {self.folder})"

    def _repr_html_(self) -> str:
        rows = self.rows
        table = table_html(rows, list(rows[0])) if rows else ""
        return f"<p>{escape(repr(self))}</p>{self.plot()._repr_html_()}{table}"
