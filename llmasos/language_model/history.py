"""What a fit came to: rows in the order of steps, for people, for pandas and for a plot.

history = model.fit(data.train)
history[-1]["loss"]                     # a row is a dict
pandas.DataFrame(history)               # or history.to_pandas()
history.plot().save("loss.svg")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, overload

from llmasos.charts import Chart, frame_of, table_html
from llmasos.simulation.svg import Series, finite, line_chart

if TYPE_CHECKING:
    import pandas

Row = dict[str, Any]
COLUMNS = (
    "step",
    "tokens",
    "loss",
    "learning_rate",
    "validation_loss",
    "validation_perplexity",
    "seconds",
    "tokens_per_second",
)
"""`loss` is the mean since the row before, nats a target; `tokens` counts targets trained on since the fit began; `seconds` its
wall time. Validation stands in the rows in which it was measured, else None."""
_SHOWN = 20


@dataclass
class History(Sequence[Row]):
    """The rows of a fit. `interrupted`: Ctrl-C ended it before its last step."""

    steps: int
    """Steps that the whole fit has."""
    rows: list[Row] = field(default_factory=list)
    interrupted: bool = False
    deviations: tuple[str, ...] = ()
    """Codes of what could not be done here as asked, such as `precision-float32` on a device without bfloat16."""

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def to_pandas(self) -> pandas.DataFrame:
        """A DataFrame with COLUMNS.

        Raises:
            MissingExtra: pandas is not installed.
        """
        return frame_of(self.rows, COLUMNS)

    def plot(self) -> Chart:
        """Training and validation loss over steps, as an SVG that shows itself in a notebook."""
        drawn = [
            Series(name, finite([(row["step"], row[key]) for row in self.rows if row[key] is not None]), colour, wide)
            for colour, (name, key, wide) in enumerate(
                (("training", "loss", False), ("validation", "validation_loss", True))
            )
        ]
        lines = [line for line in drawn if line.points]
        title = "Loss by steps"
        return Chart(line_chart(lines, [], title=title, x_label="steps", y_label="loss, nats, logarithmic"), title)

    def __repr__(self) -> str:
        if not self.rows:
            return f"History(no steps of {self.steps:,})"
        last = self.rows[-1]
        measured = [row for row in self.rows if row["validation_loss"] is not None]
        more = f", validation {measured[-1]['validation_loss']:.4f}" if measured else ""
        stopped = ", interrupted" if self.interrupted else ""
        return f"History(step {last['step']:,} of {self.steps:,}: loss {last['loss']:.4f}{more}{stopped})"

    def _repr_html_(self) -> str:
        chart = self.plot()
        drawn = chart._repr_html_() if chart.svg else ""
        return f"<p>{escape(repr(self))}</p>{drawn}{table_html(self.rows[-_SHOWN:], COLUMNS)}"
