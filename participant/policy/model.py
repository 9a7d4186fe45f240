"""What policy.yaml may say: which plans this institution takes part in, within which budgets, at which hours."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from common.names import Name, Sha256Hex
from common.windows import Window

MAX_LIST = 64
Answer = Literal["accept", "refuse", "ask"]
_PATTERN = r"^[a-z0-9*?\[\]!-]{1,63}$"


def _window(text: str) -> str:
    return str(Window.parse(text))


class Budgets(BaseModel):
    """What one run may use here. Leaving a field out means its default, null means no bound. GB are 10^9 bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu_hours: Annotated[float | None, Field(gt=0, allow_inf_nan=False, description="Time of the worker on a GPU.")] = (
        50
    )
    cpu_hours: Annotated[
        float | None, Field(gt=0, allow_inf_nan=False, description="Time of the worker on the CPU, all its threads.")
    ] = 100
    memory_gb: Annotated[
        float | None, Field(gt=0, allow_inf_nan=False, description="Of the worker, on the GPU if it has one.")
    ] = 16
    disk_gb: Annotated[float | None, Field(gt=0, allow_inf_nan=False, description="Models, delta, snapshots.")] = 50
    traffic_gb: Annotated[float | None, Field(gt=0, allow_inf_nan=False, description="In and out, together.")] = 50


class Policy(BaseModel):
    """HOME/policy.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    apiVersion: Literal["llmasos/v1"] = "llmasos/v1"  # noqa: N815  the field's name in declarative files
    answer: Annotated[Answer, Field(description="To plans that break no rule; ask: a person decides.")] = "ask"
    runs: Annotated[
        tuple[Annotated[str, Field(pattern=_PATTERN)], ...],
        Field(max_length=MAX_LIST, description="Patterns of the names of runs; * is any text."),
    ] = ("*",)
    models: Annotated[
        tuple[Literal["gpt2", "llama", "mistral", "qwen2", "qwen3", "bert", "t5", "transformer"], ...],
        Field(description="Types of model."),
    ] = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "bert", "t5", "transformer")
    min_quorum: Annotated[int, Field(ge=1, description="Of two deltas, each contributor can compute the other's.")] = 3
    metrics_visibility: Annotated[
        Literal["none", "pooled", "institution"], Field(description="Of this institution's losses, at most.")
    ] = "pooled"
    contributions_visibility: Annotated[
        Literal["none", "own", "operator"],
        Field(
            description="Of what this institution's deltas did to the model, at most; own: this institution sees it."
        ),
    ] = "own"
    allow_delta_audience: Annotated[
        tuple[Name, ...],
        Field(max_length=MAX_LIST, description="Auditors who may read this institution's deltas."),
    ] = ()
    allow_operator_rule: Annotated[
        bool, Field(description="Plans whose rule is the operator's own: nobody else can recompute a round.")
    ] = False
    allow_task_plugins: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]{0,99}==[A-Za-z0-9][\w.+!-]{0,99}$")], ...],
        Field(max_length=MAX_LIST, description="Task plugins that may run here, as name==version."),
    ] = ()
    max_parameters: Annotated[int, Field(ge=1)] = 1_000_000_000
    max_rounds: Annotated[int, Field(ge=1)] = 1_000
    max_retention_rounds: Annotated[
        int | None, Field(ge=1, description="Rounds whose deltas the coordinator may keep; null: all of the run.")
    ] = None
    budgets: Budgets = Budgets()
    windows: Annotated[
        tuple[Annotated[str, Field(max_length=100), AfterValidator(_window)], ...],
        Field(max_length=MAX_LIST, description="Hours in which the worker may work; none: at any time."),
    ] = ()
    max_load: Annotated[
        float | None,
        Field(
            gt=0, allow_inf_nan=False, description="Load a core above which no work begins; null: it does not matter."
        ),
    ] = None
    answer_inquiries: Annotated[
        bool, Field(description="Tell the operator beforehand what this policy says to a draft, in codes.")
    ] = True
    agreement: Annotated[
        Sha256Hex | None, Field(description="SHA-256 of a data-use agreement; acceptances cite it.")
    ] = None

    @property
    def timetable(self) -> tuple[Window, ...]:
        """The windows, parsed."""
        return tuple(Window.parse(text) for text in self.windows)
