"""The plan: one run's declarative description, every default visible.

People write it as YAML (common.plan.load); the coordinator signs it as JSON inside the plan statement. Rule inputs are exact:
what looks like a float is a `Decimal`, travels as a decimal string, and becomes a float in one place, so that every side
computes with the same number.

    apiVersion: llmasos/v1
    name: tiny
    task:      {type: causal-lm}
    model:     {type: gpt2, n_layer: 2, n_head: 2, n_embd: 64, n_positions: 128}
    tokenizer: {type: bpe, vocab_size: 512, text: ./public}
    local:     {steps: 10, batch_size: 8, sequence_length: 128}
    rounds:    3
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from common.names import Name
from common.plan.adapter_checks import check_adapter
from common.plan.adapters import Adapter, NoAdapter
from common.plan.architectures import GPT2, Model, architectures_with
from common.plan.codecs import Codec, DownlinkCodec, Float32Codec
from common.plan.fields import Number, PlanSection
from common.plan.local import MAX_NUM_TOKENS, Evaluation, Local, Scaffold
from common.plan.pretrained import PRETRAINED, section_of
from common.plan.rounds import Buffered, Cohort, Retention, StopRules, Synchronous
from common.plan.rules import Rule, WeightedMean, unfit
from common.plan.server_optimizers import ServerOptimizer, ServerSGD
from common.plan.tasks import CausalLM, Task
from common.plan.tokenizers import BYTES_TOKENS, BytesTokenizer, Tokenizer
from common.plan.weighting import BytesWeighting, TokensWeighting, Weighting


class NoPrivacy(PlanSection):
    """Deltas are readable by the coordinator and by auditors whom the plan names."""

    type: Literal["none"] = "none"


Privacy = NoPrivacy


def _architecture(given: Any, info: ValidationInfo) -> Any:
    """The architecture's section for one of type pretrained, which stands in files alone: nobody else has the folder."""
    if not isinstance(given, dict) or given.get("type") != PRETRAINED:
        return given
    beside = (info.context or {}).get("beside")
    if not isinstance(beside, Path):
        raise ValueError("type pretrained stands in plan files alone; expected the architecture itself")
    return section_of(given, beside)


class Plan(PlanSection):
    """A run, from architecture to stop rule."""

    apiVersion: Annotated[Literal["llmasos/v1"], Field(description="Version of this file's format.")]  # noqa: N815
    name: Annotated[Name, Field(description="Names the plan; runs are called after it.")]
    description: Annotated[str, Field(max_length=2000, description="For people.")] = ""
    seed: Annotated[int, Field(ge=0, lt=2**32, description="All randomness of the run follows from it.")] = 0
    task: Task = CausalLM()
    model: Annotated[Model, BeforeValidator(_architecture)] = GPT2()
    adapter: Adapter = NoAdapter()
    personal: Annotated[
        tuple[Annotated[str, Field(max_length=200, pattern=r"^\w+(\.\w+)*$")], ...],
        Field(
            max_length=1000,
            description="Layers that each institution trains for itself and never sends, by whole parts of tensors' names, as "
            "in [lm_head, h.2, ln_1]: FedPer (arXiv:1912.00818). The final model has their initial values.",
        ),
    ] = ()
    tokenizer: Tokenizer = BytesTokenizer()
    local: Local = Local()
    evaluation: Evaluation = Evaluation()
    codec: Codec = Float32Codec()
    downlink: Annotated[
        DownlinkCodec | None,
        Field(
            description="Codec of what a round adds to the model: who holds the base fetches only that, in this size. What it "
            "drops goes into the next round's model. Default: members fetch whole models."
        ),
    ] = None
    weighting: Weighting = TokensWeighting()
    rule: Rule = WeightedMean()
    server_optimizer: ServerOptimizer = ServerSGD()
    privacy: Privacy = NoPrivacy()
    rounds: Annotated[
        int, Field(ge=1, le=1_000_000, description="Training rounds, unless a stop rule ends sooner.")
    ] = 8
    cohort: Cohort = Cohort()
    mode: Annotated[Synchronous | Buffered, Field(discriminator="type")] = Synchronous()
    quorum: Annotated[
        int, Field(ge=1, le=100_000, description="Deltas a commit needs; of 2, each can compute the other.")
    ] = 3
    deadline_seconds: Annotated[int, Field(ge=1, le=2_592_000, description="From opening to seal, at most.")] = 3600
    stop: StopRules = StopRules()
    max_delta_l2: Annotated[Number, Field(gt=0, description="Longer deltas are refused; same unit as the weights.")] = (
        Decimal(1000)
    )
    delta_audience: Annotated[
        tuple[Name, ...], Field(description="Auditors who may read deltas, besides the coordinator.")
    ] = ()
    metrics_visibility: Annotated[
        Literal["none", "pooled", "institution"],
        Field(description="Who sees held-out losses: nobody, only sums over 3 or more institutions, or each one's."),
    ] = "pooled"
    contributions_visibility: Annotated[
        Literal["none", "own", "operator"],
        Field(
            description="Who is shown how much each delta moved the model, and where to: nobody, each institution its own "
            "row, or besides the operator and auditors of delta_audience every row."
        ),
    ] = "none"
    retention: Retention = Retention()

    @property
    def slots(self) -> tuple[str, ...]:
        """What a server_state holds of each trainable element: the server optimizer's slots, then what the downlink drops; or
        SCAFFOLD's control variate alone, since institutions read it."""
        return ("control",) if self.corrects else self.step_slots

    @property
    def step_slots(self) -> tuple[str, ...]:
        """Those that the step from the combined delta to the new model reads and changes."""
        drops = self.downlink is not None and self.downlink.type != "float32"
        return (*self.server_optimizer.slots, *(("residual",) if drops else ()))

    @property
    def corrects(self) -> bool:
        """Whether local steps are corrected by control variates, and contributions hold a `control`: SCAFFOLD."""
        return isinstance(self.local.correction, Scaffold)

    @property
    def leaves_server_state(self) -> bool:
        """Whether committed rounds leave a server_state: server optimizer, downlink or SCAFFOLD keep something."""
        return bool(self.slots)

    @property
    def max_control_l2(self) -> Decimal | None:
        """The bound of a contribution's `control`; None where there is none."""
        correction = self.local.correction
        return correction.max_control_l2 if isinstance(correction, Scaffold) else None

    def is_personal(self, name: str) -> bool:
        """Whether a trained tensor of that name never leaves its institution."""
        return any(self.is_named_by(pattern, name) for pattern in self.personal)

    @staticmethod
    def is_named_by(pattern: str, name: str) -> bool:
        """Whether the parts of `pattern` stand one after the other in a dotted name."""
        return f".{pattern}." in f".{name}."

    @model_validator(mode="after")
    def _fits_together(self) -> Plan:
        if len(set(self.personal)) != len(self.personal):
            raise ValueError("personal names a layer twice")
        if self.personal and self.model.weights is not None:
            # What is personal is in no model file: an institution could only begin with random values.
            raise ValueError("personal layers need a model with random initial weights; model.weights names a folder")
        self._check_head()
        self._check_vocabulary()
        if self.local.sequence_length > self.model.context_tokens:
            raise ValueError(
                f"local.sequence_length is {self.local.sequence_length}, the model's context {self.model.context_tokens}"
            )
        if self.cohort.size is not None and self.cohort.size < self.quorum:
            raise ValueError(f"cohort.size {self.cohort.size} is below quorum {self.quorum}")
        self._check_rule()
        self._check_weighting()
        self._check_correction()
        if isinstance(self.mode, Buffered) and not self.cohort.is_everyone:
            raise ValueError("mode buffered invites everyone who accepted; leave cohort.size and cohort.fraction out")
        if isinstance(self.mode, Buffered) and self.mode.buffer < self.quorum:
            raise ValueError(f"mode.buffer {self.mode.buffer} is below quorum {self.quorum}")
        if self.rule.type == "operator" and (self.downlink is not None or self.server_optimizer != ServerSGD()):
            raise ValueError("rule operator: expected no downlink, and server_optimizer sgd with learning_rate 1")
        check_adapter(self.adapter, self.model, self.task, self.local)
        return self

    def _check_head(self) -> None:
        head = self.task.head
        if head not in self.model.heads:
            fit = ", ".join(architectures_with(head))
            raise ValueError(f"task {self.task.type} needs a model with head {head} ({fit}), got {self.model.title}")

    def _check_vocabulary(self) -> None:
        """Of the one tokenizer whose size is known before it is made."""
        rows = self.model.vocab_size
        tokens = BYTES_TOKENS + len(self.task.special_tokens)
        if isinstance(self.tokenizer, BytesTokenizer) and rows is not None and tokens > rows:
            raise ValueError(
                f"tokenizer bytes has {tokens} tokens for task {self.task.type}, the model's embedding {rows} rows "
                "(model.vocab_size)"
            )

    def _check_correction(self) -> None:
        """What SCAFFOLD does not go with yet; the server_state, which institutions read, holds its control variate alone."""
        needs: tuple[tuple[str, str, str, bool], ...] = (
            ("rule", "weighted-mean", self.rule.type, isinstance(self.rule, WeightedMean)),
            ("codec", "float32", self.codec.type, isinstance(self.codec, Float32Codec)),
            ("server_optimizer", "sgd", self.server_optimizer.type, isinstance(self.server_optimizer, ServerSGD)),
            ("mode", "synchronous", self.mode.type, not isinstance(self.mode, Buffered)),
        )
        for name, wanted, got, fits in needs if self.corrects else ():
            if not fits:
                raise ValueError(f"local.correction scaffold needs {name} {wanted}, got {got}")
        if self.corrects and self.step_slots and self.downlink is not None:
            raise ValueError(f"local.correction scaffold needs downlink float32 or none, got {self.downlink.type}")

    @property
    def max_num_bytes(self) -> int | None:
        """What a contribution's num_bytes may be at most; None where it has none."""
        if not isinstance(self.weighting, BytesWeighting):
            return None
        return self.local.tokens_per_round * self.weighting.max_bytes_a_token

    def _check_weighting(self) -> None:
        most = self.max_num_bytes
        if most is None:
            return
        if not isinstance(self.task, CausalLM):
            raise ValueError(f"weighting bytes needs task causal-lm, whose targets are text, got {self.task.type}")
        if most > MAX_NUM_TOKENS:
            raise ValueError(
                f"steps × batch_size × sequence_length × weighting.max_bytes_a_token is {most:,}, at most "
                f"{MAX_NUM_TOKENS:,} a round"
            )

    def _check_rule(self) -> None:
        for name, deltas in (("quorum", self.quorum), ("cohort.size", self.cohort.size)):
            why = None if deltas is None else unfit(self.rule, deltas)
            if why is not None:
                raise ValueError(f"{name} is {deltas:,}: rule {why}")
