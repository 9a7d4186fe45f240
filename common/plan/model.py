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

from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from common.names import Name

MAX_NUM_TOKENS = 2**29 - 1
"""Weights stay below 2^29, so that weight × float32 is exact in float64 (docs/protocol.md#arithmetic)."""


def _to_decimal(value: Any) -> Any:
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    if not isinstance(value, str):
        return value
    try:
        return Decimal(value)
    except InvalidOperation as err:
        raise ValueError("expected a decimal number, such as 0.002") from err


def _decimal_text(value: Decimal) -> str:
    text = format(value.normalize(), "f")
    return "0" if text in {"-0", "0"} else text


Number = Annotated[
    Decimal,
    BeforeValidator(_to_decimal),
    PlainSerializer(_decimal_text, return_type=str),
    Field(allow_inf_nan=False, max_digits=28),  # what `normalize` keeps: more digits would be rounded on their way out
]
"""A number that everybody computes with: exact decimal text in statements."""


class PlanSection(BaseModel):
    """Base of every part of a plan: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- what is trained -------------------------------------------------------------------------------------------------


class CausalLM(PlanSection):
    """Predict the next token."""

    type: Literal["causal-lm"] = "causal-lm"


Task = CausalLM


class GPT2(PlanSection):
    """GPT-2: decoder-only, learned positions, tied embeddings (Radford et al. 2019)."""

    type: Literal["gpt2"] = "gpt2"
    n_layer: Annotated[int, Field(ge=1, le=200, description="Transformer blocks.")] = 3
    n_head: Annotated[int, Field(ge=1, le=256, description="Attention heads; must divide n_embd.")] = 4
    n_embd: Annotated[int, Field(ge=8, le=32768, description="Width of the model.")] = 128
    n_positions: Annotated[int, Field(ge=8, le=131072, description="Longest context, tokens.")] = 128
    dropout: Annotated[Number, Field(ge=0, lt=1, description="Residual, embedding and attention dropout.")] = Decimal(0)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> GPT2:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_head must divide n_embd, got {self.n_head} and {self.n_embd}")
        return self

    @property
    def context_tokens(self) -> int:
        return self.n_positions

    @property
    def linear_layers(self) -> tuple[str, ...]:
        """The linear layers of a transformer block, by their path in it."""
        return ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


class Llama(PlanSection):
    """Llama: decoder-only, rotary positions, RMSNorm, SwiGLU, grouped-query attention (arXiv:2302.13971)."""

    type: Literal["llama"] = "llama"
    num_hidden_layers: Annotated[int, Field(ge=1, le=200, description="Transformer blocks.")] = 3
    num_attention_heads: Annotated[
        int, Field(ge=1, le=256, description="Attention heads; must divide hidden_size.")
    ] = 4
    num_key_value_heads: Annotated[
        int, Field(ge=1, le=256, description="Key and value heads; must divide num_attention_heads.")
    ] = 4
    hidden_size: Annotated[int, Field(ge=8, le=32768, description="Width of the model.")] = 128
    intermediate_size: Annotated[int, Field(ge=8, le=131072, description="Width inside the feed-forward blocks.")] = 344
    max_position_embeddings: Annotated[int, Field(ge=8, le=131072, description="Longest context, tokens.")] = 128
    tie_word_embeddings: Annotated[bool, Field(description="Input and output embeddings are one tensor.")] = True

    @model_validator(mode="after")
    def _heads_divide(self) -> Llama:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("num_attention_heads must divide hidden_size")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_key_value_heads must divide num_attention_heads")
        return self

    @property
    def context_tokens(self) -> int:
        return self.max_position_embeddings

    @property
    def linear_layers(self) -> tuple[str, ...]:
        """The linear layers of a transformer block, by their path in it."""
        attention = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
        return (*attention, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


Model = Annotated[GPT2 | Llama, Field(discriminator="type")]


class NoAdapter(PlanSection):
    """Every tensor of the model is trained."""

    type: Literal["none"] = "none"


class LoRA(PlanSection):
    """LoRA (arXiv:2106.09685): only two small matrices beside each target layer are trained and travel. Fields are peft's."""

    type: Literal["lora"] = "lora"
    r: Annotated[
        int, Field(ge=1, le=4096, description="Rank: rows of A, columns of B, in weight + lora_alpha / r × BA.")
    ] = 8
    lora_alpha: Annotated[
        int, Field(ge=1, le=65536, description="Scales what the adapter adds, by lora_alpha / r.")
    ] = 16
    lora_dropout: Annotated[Number, Field(ge=0, lt=1, description="Dropout on the adapter's input, in training.")] = (
        Decimal(0)
    )
    target_modules: Annotated[
        Literal["all-linear"] | Annotated[tuple[Annotated[str, Field(max_length=100)], ...], Field(min_length=1)],
        Field(
            description="Linear layers of a block that get an adapter, by the end of their names, as in [q_proj, v_proj]; "
            "all-linear: each of them."
        ),
    ] = "all-linear"

    @model_validator(mode="after")
    def _names_are_distinct(self) -> LoRA:
        if isinstance(self.target_modules, tuple) and len(set(self.target_modules)) != len(self.target_modules):
            raise ValueError("target_modules names a layer twice")
        return self

    def targets(self, model: Model) -> tuple[str, ...]:
        """The linear layers of a block of `model` that get an adapter, by their path in it."""
        if isinstance(self.target_modules, str):
            return model.linear_layers
        return tuple(path for path in model.linear_layers if any(_ends(path, name) for name in self.target_modules))

    def unknown(self, model: Model) -> tuple[str, ...]:
        """What target_modules names and a block of `model` has not."""
        if isinstance(self.target_modules, str):
            return ()
        return tuple(name for name in self.target_modules if not any(_ends(path, name) for path in model.linear_layers))


def _ends(path: str, name: str) -> bool:
    """Whether `name` is the end of a dotted path, whole parts of it."""
    return path == name or path.endswith(f".{name}")


Adapter = Annotated[NoAdapter | LoRA, Field(discriminator="type")]


class BytesTokenizer(PlanSection):
    """One token a byte of UTF-8, and one that ends a document: 257 tokens, nothing to train."""

    type: Literal["bytes"] = "bytes"


class BpeTokenizer(PlanSection):
    """Byte-level BPE, trained by `plan prepare` on public text that the plan names, never on private text."""

    type: Literal["bpe"] = "bpe"
    vocab_size: Annotated[
        int, Field(ge=258, le=1_000_000, description="Tokens, the 256 bytes and the end of a document included.")
    ] = 1024
    text: Annotated[str, Field(description="Folder or file of public text, relative to the plan file.")]


class GivenTokenizer(PlanSection):
    """A tokenizer.json that exists already."""

    type: Literal["given"] = "given"
    path: Annotated[str, Field(description="A tokenizers JSON file, relative to the plan file.")]


Tokenizer = Annotated[BytesTokenizer | BpeTokenizer | GivenTokenizer, Field(discriminator="type")]


# --- how each institution trains -------------------------------------------------------------------------------------


class AdamW(PlanSection):
    """AdamW (arXiv:1711.05101), torch's semantics."""

    type: Literal["adamw"] = "adamw"
    learning_rate: Annotated[Number, Field(gt=0, le=10, description="Highest local learning rate.")] = Decimal("0.002")
    beta1: Annotated[Number, Field(ge=0, lt=1, description="Decay of the gradient's mean.")] = Decimal("0.9")
    beta2: Annotated[Number, Field(ge=0, lt=1, description="Decay of the squared gradient's mean.")] = Decimal("0.95")
    epsilon: Annotated[Number, Field(gt=0, le=1, description="Added to the denominator.")] = Decimal("0.00000001")
    weight_decay: Annotated[Number, Field(ge=0, le=10, description="Decoupled from the gradient.")] = Decimal("0.1")


class CosineSchedule(PlanSection):
    """Linear warm-up, then cosine down to `final_fraction` of the learning rate, over all local steps of the run."""

    type: Literal["cosine"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0, description="Steps from 0 up to the learning rate.")] = 10
    final_fraction: Annotated[
        Number, Field(ge=0, le=1, description="Learning rate at the last step, as a share of the highest.")
    ] = Decimal("0.1")


class ConstantSchedule(PlanSection):
    """Linear warm-up, then the learning rate itself."""

    type: Literal["constant"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0, description="Steps from 0 up to the learning rate.")] = 10


class Local(PlanSection):
    """One institution's work in a round."""

    steps: Annotated[int, Field(ge=1, le=1_000_000, description="Optimizer steps a round.")] = 25
    batch_size: Annotated[int, Field(ge=1, le=65536, description="Sequences a step.")] = 8
    micro_batch_size: Annotated[
        int | None,
        Field(ge=1, description="Sequences at once on the device; the rest accumulates. Default: batch_size."),
    ] = None
    sequence_length: Annotated[int, Field(ge=8, le=131072, description="Tokens a sequence.")] = 128
    optimizer: AdamW = AdamW()
    schedule: Annotated[CosineSchedule | ConstantSchedule, Field(discriminator="type")] = CosineSchedule()
    max_gradient_norm: Annotated[
        Number, Field(gt=0, description="Gradients with a longer L2 norm are scaled down to it.")
    ] = Decimal(1)
    optimizer_state: Annotated[
        Literal["keep", "reset"], Field(description="Whether the local optimizer's moments live on across rounds.")
    ] = "keep"
    precision: Annotated[
        Literal["float32", "bfloat16"],
        Field(description="bfloat16: autocast where the device has it, recorded if not."),
    ] = "float32"

    @property
    def tokens_per_round(self) -> int:
        """What num_tokens may be at most."""
        return self.steps * self.batch_size * self.sequence_length

    @model_validator(mode="after")
    def _weight_stays_exact(self) -> Local:
        if self.tokens_per_round > MAX_NUM_TOKENS:
            raise ValueError(
                f"steps × batch_size × sequence_length is {self.tokens_per_round:,}, at most {MAX_NUM_TOKENS:,} a round"
            )
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError("micro_batch_size must divide batch_size")
        return self


class Evaluation(PlanSection):
    """Every institution measures every global model on its own held-out documents."""

    held_out_fraction: Annotated[Number, Field(gt=0, lt=1, description="Share of documents kept out of training.")] = (
        Decimal("0.1")
    )
    max_tokens: Annotated[int, Field(ge=1, le=10**9, description="At most so many held-out tokens a measurement.")] = (
        16384
    )


# --- how deltas travel and become a model ----------------------------------------------------------------------------


class Float32Codec(PlanSection):
    """Deltas as they are: 4 bytes a number."""

    type: Literal["float32"] = "float32"


class Bfloat16Codec(PlanSection):
    """The upper half of each float32: 2 bytes a number. What is lost goes into the institution's next delta."""

    type: Literal["bfloat16"] = "bfloat16"


class Int8Codec(PlanSection):
    """Whole numbers from -127 to 127, 124 to a scale: 26 % of float32. What is lost goes into the institution's next delta."""

    type: Literal["int8"] = "int8"


class Int4Codec(PlanSection):
    """Whole numbers from -7 to 7, 120 to a scale: 14 % of float32. What is lost goes into the institution's next delta."""

    type: Literal["int4"] = "int4"


class TopkCodec(PlanSection):
    """The largest numbers of each block as they are: 1.3 % of float32 at 1 %. The others go into the next delta."""

    type: Literal["topk"] = "topk"
    fraction: Annotated[
        Number, Field(ge=Decimal("0.001"), le=Decimal("0.5"), description="Share of a delta's numbers that travels.")
    ] = Decimal("0.01")


Codec = Annotated[Float32Codec | Bfloat16Codec | Int8Codec | Int4Codec | TopkCodec, Field(discriminator="type")]
DownlinkCodec = Annotated[Float32Codec | Bfloat16Codec | Int8Codec | Int4Codec, Field(discriminator="type")]
"""What a round adds to the model, as it travels; `float32` among them drops nothing, and has no residual."""


class WeightedMean(PlanSection):
    """Mean of deltas weighted by num_tokens: FedAvg (arXiv:1602.05629)."""

    type: Literal["weighted-mean"] = "weighted-mean"


class OperatorRule(PlanSection):
    """What the operator's configuration names combines deltas, such as a strategy of Flower. Nobody else can recompute a round:
    `verify` reports each as a gap. The server optimizer is the strategy's own.
    """

    type: Literal["operator"] = "operator"


Rule = Annotated[WeightedMean | OperatorRule, Field(discriminator="type")]


class ServerSGD(PlanSection):
    """new = base + learning_rate × mean delta; 1 is FedAvg."""

    type: Literal["sgd"] = "sgd"
    learning_rate: Annotated[
        Number, Field(gt=0, le=100, description="How much of the mean delta is applied; 1 is FedAvg.")
    ] = Decimal(1)


ServerOptimizer = ServerSGD


class NoPrivacy(PlanSection):
    """Deltas are readable by the coordinator and by auditors whom the plan names."""

    type: Literal["none"] = "none"


Privacy = NoPrivacy


# --- rounds ----------------------------------------------------------------------------------------------------------


class Cohort(PlanSection):
    """Who is invited to a round, of those who accepted the plan."""

    size: Annotated[
        int | None, Field(ge=1, le=100_000, description="Institutions a round, drawn anew each round. Default: all.")
    ] = None


class StopRules(PlanSection):
    """When a run ends before `rounds`. Measured by the median over institutions of held-out perplexity."""

    target_perplexity: Annotated[Number | None, Field(gt=1, description="End at this perplexity or below.")] = None
    patience_rounds: Annotated[int | None, Field(ge=1, description="End after so many rounds without improvement.")] = (
        None
    )

    @property
    def looks_at_losses(self) -> bool:
        """Whether there is any rule."""
        return self.target_perplexity is not None or self.patience_rounds is not None


class Retention(PlanSection):
    """How long the coordinator keeps what lets others recompute a round. Of both bounds, the stricter one counts."""

    delta_rounds: Annotated[
        int | None, Field(ge=1, description="Keep the deltas of so many newest rounds. Default: all rounds.")
    ] = None
    delta_bytes: Annotated[
        int | None,
        Field(
            ge=1,
            lt=2**53,
            description="Keep the deltas of the newest rounds that together have at most so many bytes, one round's "
            "in any case. Default: no bound.",
        ),
    ] = None

    def rounds_kept(self, rounds: int, delta_bytes: int) -> int:
        """Of how many closed rounds deltas are kept at once, at most.

        Args:
            rounds: how many there are.
            delta_bytes: the fewest that a round's deltas have together.
        """
        bounds = [rounds]
        bounds += [] if self.delta_rounds is None else [self.delta_rounds]
        bounds += [] if self.delta_bytes is None else [max(1, self.delta_bytes // max(1, delta_bytes))]
        return min(bounds)


class Plan(PlanSection):
    """A run, from architecture to stop rule."""

    apiVersion: Annotated[Literal["llmasos/v1"], Field(description="Version of this file's format.")]  # noqa: N815
    name: Annotated[Name, Field(description="Names the plan; runs are called after it.")]
    description: Annotated[str, Field(max_length=2000, description="For people.")] = ""
    seed: Annotated[int, Field(ge=0, lt=2**32, description="All randomness of the run follows from it.")] = 0
    task: Task = CausalLM()
    model: Model = GPT2()
    adapter: Adapter = NoAdapter()
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
    rule: Rule = WeightedMean()
    server_optimizer: ServerOptimizer = ServerSGD()
    privacy: Privacy = NoPrivacy()
    rounds: Annotated[
        int, Field(ge=1, le=1_000_000, description="Training rounds, unless a stop rule ends sooner.")
    ] = 8
    cohort: Cohort = Cohort()
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
    retention: Retention = Retention()

    @property
    def leaves_server_state(self) -> bool:
        """Whether committed rounds leave a server_state: what the downlink's codec drops; `float32` drops nothing."""
        return self.downlink is not None and self.downlink.type != "float32"

    @model_validator(mode="after")
    def _fits_together(self) -> Plan:
        if self.local.sequence_length > self.model.context_tokens:
            raise ValueError(
                f"local.sequence_length is {self.local.sequence_length}, the model's context {self.model.context_tokens}"
            )
        if self.cohort.size is not None and self.cohort.size < self.quorum:
            raise ValueError(f"cohort.size {self.cohort.size} is below quorum {self.quorum}")
        if self.rule.type == "operator" and (self.downlink is not None or self.server_optimizer != ServerSGD()):
            raise ValueError("rule operator: expected no downlink, and server_optimizer sgd with learning_rate 1")
        unknown = self.adapter.unknown(self.model) if isinstance(self.adapter, LoRA) else ()
        if unknown:
            names = ", ".join(self.model.linear_layers)
            raise ValueError(
                f"adapter.target_modules names {', '.join(unknown)}, which a block of {self.model.type} has not; "
                f"its linear layers are {names}"
            )
        return self
