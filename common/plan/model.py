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
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from common.names import Name
from common.plan.fields import Number, PlanSection
from common.plan.rules import Rule, WeightedMean, unfit

MAX_NUM_TOKENS = 2**29 - 1
"""Weights stay below 2^29, so that weight × float32 is exact in float64 (docs/protocol.md#arithmetic)."""


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
    fedprox_mu: Annotated[
        Number,
        Field(
            ge=0,
            le=1000,
            description="FedProx (arXiv:1812.06127): mu × (weights − base model) is added to the gradient, so that no "
            "institution drifts far in a round; 0: nothing is.",
        ),
    ] = Decimal(0)
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


_Rate = Annotated[Number, Field(gt=0, le=100)]
_Decay = Annotated[Number, Field(ge=0, le=Decimal("0.9999"))]
"""Well below 1: in float64 and in float32 what is left of 1 is not 0."""
_Added = Annotated[Number, Field(ge=Decimal("0.000000000001"), le=1)]
"""In float32 it is not 0."""


class ServerStep(PlanSection):
    """Base of all server optimizers. What they keep from round to round is in the round's server_state."""

    type: str

    scalars: ClassVar[tuple[str, ...]] = ()
    """Numbers of the whole model, float64."""
    slots: ClassVar[tuple[str, ...]] = ()
    """Numbers of each trainable element, float32."""


class ServerSGD(ServerStep):
    """new = base + learning_rate × mean delta; 1 is FedAvg."""

    type: Literal["sgd"] = "sgd"
    learning_rate: Annotated[_Rate, Field(description="How much of the mean delta is applied; 1 is FedAvg.")] = Decimal(
        1
    )


class ServerMomentum(ServerStep):
    """SGD with momentum: learning_rate × the sum of all mean deltas, older ones decayed. FedAvgM (arXiv:1909.06335)."""

    slots: ClassVar[tuple[str, ...]] = ("momentum",)

    type: Literal["momentum"] = "momentum"
    learning_rate: Annotated[
        _Rate, Field(description="How much of the momentum is applied; of steady deltas, ÷ (1 − momentum).")
    ] = Decimal("0.3")
    momentum: Annotated[_Decay, Field(description="What is left of earlier deltas after each round.")] = Decimal("0.9")


class ServerNesterov(ServerStep):
    """SGD with Nesterov momentum: DiLoCo's outer optimizer with its defaults (arXiv:2311.08105)."""

    slots: ClassVar[tuple[str, ...]] = ("momentum",)

    type: Literal["nesterov"] = "nesterov"
    learning_rate: Annotated[_Rate, Field(description="How much of mean delta and momentum is applied.")] = Decimal(
        "0.7"
    )
    momentum: Annotated[_Decay, Field(description="What is left of earlier deltas after each round.")] = Decimal("0.9")


class _ServerAdam(ServerStep):
    scalars: ClassVar[tuple[str, ...]] = ("beta1_power", "beta2_power")
    slots: ClassVar[tuple[str, ...]] = ("mean", "square")

    learning_rate: Annotated[_Rate, Field(description="About the longest step of an element in a round.")] = Decimal(
        "0.01"
    )
    beta1: Annotated[_Decay, Field(description="Decay of the deltas' mean.")] = Decimal("0.9")
    beta2: Annotated[_Decay, Field(description="Decay of the squared deltas' mean.")] = Decimal("0.99")
    epsilon: Annotated[
        _Added, Field(description="Added to the denominator; deltas far below it are hardly adapted.")
    ] = Decimal("0.001")
    bias_correction: Annotated[
        bool, Field(description="Whether both means are of the rounds so far alone, as in torch, or start from zeros.")
    ] = True


class ServerAdam(_ServerAdam):
    """Adam over mean deltas, torch's formula; with bias_correction: false FedAdam (arXiv:2003.00295), epsilon its tau."""

    type: Literal["adam"] = "adam"


class ServerAdamW(_ServerAdam):
    """Adam, and each round takes learning_rate × weight_decay off every weight (arXiv:1711.05101), torch's formula."""

    type: Literal["adamw"] = "adamw"
    weight_decay: Annotated[
        Number, Field(ge=0, le=10, description="Share of a weight that decays a round, × learning_rate.")
    ] = Decimal("0.01")


class ServerYogi(ServerStep):
    """FedYogi (arXiv:2003.00295): as Adam without bias correction, but the squares' mean changes by additions alone."""

    slots: ClassVar[tuple[str, ...]] = ("mean", "square")

    type: Literal["yogi"] = "yogi"
    learning_rate: Annotated[_Rate, Field(description="About the longest step of an element in a round.")] = Decimal(
        "0.01"
    )
    beta1: Annotated[_Decay, Field(description="Decay of the deltas' mean.")] = Decimal("0.9")
    beta2: Annotated[_Decay, Field(description="1 − beta2 is how fast the squares' mean follows.")] = Decimal("0.99")
    tau: Annotated[_Added, Field(description="Added to the denominator; deltas far below it are hardly adapted.")] = (
        Decimal("0.001")
    )
    initial_square: Annotated[
        Number, Field(ge=0, le=1, description="Where the squares' mean starts; the paper's: at least tau².")
    ] = Decimal("0.000001")


class ServerAdagrad(ServerStep):
    """FedAdagrad (arXiv:2003.00295) without momentum, as torch's Adagrad: steps shorten where deltas were long so far."""

    slots: ClassVar[tuple[str, ...]] = ("square",)

    type: Literal["adagrad"] = "adagrad"
    learning_rate: Annotated[_Rate, Field(description="About the first step of an element.")] = Decimal("0.01")
    tau: Annotated[_Added, Field(description="Added to the denominator; deltas far below it are hardly adapted.")] = (
        Decimal("0.001")
    )
    initial_square: Annotated[
        Number, Field(ge=0, le=1, description="Where the sum of squares starts; the paper's: at least tau².")
    ] = Decimal("0.000001")


ServerOptimizer = Annotated[
    ServerSGD | ServerMomentum | ServerNesterov | ServerAdam | ServerAdamW | ServerYogi | ServerAdagrad,
    Field(discriminator="type"),
]


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
    fraction: Annotated[
        Number | None,
        Field(gt=0, le=1, description="Instead of size: share of those who accepted, rounded up, at least quorum."),
    ] = None
    selection: Annotated[
        Literal["uniform", "weighted", "round-robin", "available"],
        Field(
            description="How they are drawn: uniform; weighted by the tokens that each trained on last; round-robin, in "
            "turn; available, those first who contributed when last invited."
        ),
    ] = "uniform"
    over_selection: Annotated[
        Number,
        Field(
            ge=0,
            le=10,
            description="Share of size or fraction that is invited beyond it, for stragglers: the round is sealed when "
            "as many have contributed as were wanted.",
        ),
    ] = Decimal(0)

    @property
    def is_everyone(self) -> bool:
        """Whether nothing is drawn: all who accepted are in each round."""
        return self.size is None and self.fraction is None

    @model_validator(mode="after")
    def _draws_something(self) -> Cohort:
        if self.size is not None and self.fraction is not None:
            raise ValueError("cohort has both size and fraction, expected one of them")
        if self.is_everyone and self.selection != "uniform":
            raise ValueError(f"cohort.selection {self.selection} needs cohort.size or cohort.fraction to draw by")
        if self.is_everyone and self.over_selection:
            raise ValueError("cohort.over_selection needs cohort.size or cohort.fraction to invite more than")
        return self


class Synchronous(PlanSection):
    """A round waits for its cohort, up to its deadline; what comes later is refused."""

    type: Literal["synchronous"] = "synchronous"


class Buffered(PlanSection):
    """FedBuff (arXiv:2106.06639): a round is sealed when `buffer` deltas are in, also ones trained from an older model."""

    type: Literal["buffered"] = "buffered"
    buffer: Annotated[int, Field(ge=1, le=100_000, description="Deltas that make a new model.")]
    max_staleness: Annotated[
        int,
        Field(
            ge=0,
            le=1000,
            description="By how many rounds a delta may be late; s rounds late it weighs num_tokens ÷ sqrt(1 + s).",
        ),
    ] = 4


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
        """What a server_state holds of each trainable element: the server optimizer's slots, then what the downlink drops."""
        drops = self.downlink is not None and self.downlink.type != "float32"
        return (*self.server_optimizer.slots, *(("residual",) if drops else ()))

    @property
    def leaves_server_state(self) -> bool:
        """Whether committed rounds leave a server_state: the server optimizer keeps something, or the downlink does."""
        return bool(self.slots)

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
        if self.local.sequence_length > self.model.context_tokens:
            raise ValueError(
                f"local.sequence_length is {self.local.sequence_length}, the model's context {self.model.context_tokens}"
            )
        if self.cohort.size is not None and self.cohort.size < self.quorum:
            raise ValueError(f"cohort.size {self.cohort.size} is below quorum {self.quorum}")
        self._check_rule()
        if isinstance(self.mode, Buffered) and not self.cohort.is_everyone:
            raise ValueError("mode buffered invites everyone who accepted; leave cohort.size and cohort.fraction out")
        if isinstance(self.mode, Buffered) and self.mode.buffer < self.quorum:
            raise ValueError(f"mode.buffer {self.mode.buffer} is below quorum {self.quorum}")
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

    def _check_rule(self) -> None:
        for name, deltas in (("quorum", self.quorum), ("cohort.size", self.cohort.size)):
            why = None if deltas is None else unfit(self.rule, deltas)
            if why is not None:
                raise ValueError(f"{name} is {deltas:,}: rule {why}")
