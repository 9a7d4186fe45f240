"""What a plan costs an institution, from the plan and its tensor manifest alone. Pure; each figure's formula stands at it.

P is the number of parameters, T those that are trained, both from the manifest. A parameter has 4 bytes (float32).
"""

from __future__ import annotations

from dataclasses import dataclass

from common.ledger.downlink import applied_delta_bytes, contribution_bytes, round_down_bytes
from common.plan.adapters import LoRA
from common.plan.tokenizers import BpeTokenizer, BytesTokenizer
from common.statements.kinds import PlanStatement
from common.tensors import delta_size, trainable_elements
from participant.residuals import LOSSLESS

FLOAT_BYTES = 4
PERSONAL_FILES = 4
CONTROL_FILES = 6
"""Before the round, after it and being written; the control as it was made; the server_state, fetched and in the job folder."""
SNAPSHOTS = 3
"""Two are kept (this round's, and the moments of the round before); the next one is written before one of them goes."""
RESIDUALS = 2
"""The round's that the next one starts from, and the next one's."""
RUNTIME_BYTES = 500_000_000
"""Python, torch and transformers before any tensor: 0.34 GB after their import on a CPU, and room for their buffers."""
GB = 1_000_000_000
_A, _B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes, tokens and parameters; of one institution that is in every cohort.

    The first round fetches the whole model; `down_bytes_per_round` is what a later one fetches.
    """

    parameters: int
    trained_parameters: int
    tokens_per_round: int
    traffic_bytes: int
    down_bytes_per_round: int
    up_bytes_per_round: int
    disk_bytes: int
    memory_bytes: int


def estimate(statement: PlanStatement) -> Estimate:
    """All figures of a plan."""
    return Estimate(
        parameters=parameters(statement),
        trained_parameters=trained_parameters(statement),
        tokens_per_round=statement.plan.local.tokens_per_round,
        traffic_bytes=traffic_bytes(statement),
        down_bytes_per_round=down_bytes(statement),
        up_bytes_per_round=delta_bytes(statement),
        disk_bytes=disk_bytes(statement),
        memory_bytes=memory_bytes(statement),
    )


def parameters(statement: PlanStatement) -> int:
    """P: elements of all tensors."""
    return sum(tensor.elements for tensor in statement.manifest)


def trained_parameters(statement: PlanStatement) -> int:
    """T: elements of the tensors that training changes: all but frozen ones."""
    return sum(tensor.elements for tensor in statement.manifest if tensor.group != "frozen")


def delta_bytes(statement: PlanStatement) -> int:
    """A delta as it travels: the trainable tensors in the plan's codec, header included; with SCAFFOLD its control too."""
    return contribution_bytes(statement)


def down_bytes(statement: PlanStatement) -> int:
    """What a round after the first fetches of its model: the chunks that training changes, or an applied delta if smaller;
    with SCAFFOLD the server_state on top."""
    return round_down_bytes(statement, statement.initial.model.size)


def residual_bytes(statement: PlanStatement) -> int:
    """4 × elements of the trainable tensors; none where the codec loses nothing."""
    if statement.plan.codec.type == LOSSLESS:
        return 0
    return FLOAT_BYTES * trainable_elements(statement.manifest)


def traffic_bytes(statement: PlanStatement) -> int:
    """tokenizer + model + rounds × (delta up + down_bytes), the last of them down for the last evaluation.

    Statements are small beside it.
    """
    each_round = delta_bytes(statement) + down_bytes(statement)
    return statement.initial.tokenizer.size + statement.initial.model.size + statement.plan.rounds * each_round


def disk_bytes(statement: PlanStatement) -> int:
    """2 × model + delta + encoded delta + RESIDUALS × residual + applied delta + SNAPSHOTS × snapshot + personal layers.

    Of personal layers there are at most 4 at once: initial, before the round, after it, and one that is being written.

    With SCAFFOLD CONTROL_FILES × 4 × trainable elements more: this institution's control variates, the control as it was made,
    and the server_state, which is the consortium's.

    The data's token files come on top. A member that missed rounds holds several applied deltas for a moment.

    The model lies in the blob folder and, where the file system has no hard links, again in the job folder; so does a delta,
    there as it was trained and here as it travels. A snapshot holds the trained weights and the local
    optimizer's moments, 3 × 4 T with AdamW.
    """
    snapshot = (1 + statement.plan.local.optimizer.moments_a_weight) * FLOAT_BYTES * trained_parameters(statement)
    deltas = delta_size(statement.manifest) + delta_bytes(statement) + RESIDUALS * residual_bytes(statement)
    applied = applied_delta_bytes(statement) or 0
    personal = FLOAT_BYTES * sum(tensor.elements for tensor in statement.manifest if tensor.group == "personal")
    beside = PERSONAL_FILES * personal + _correction_bytes(statement, CONTROL_FILES)
    return 2 * statement.initial.model.size + deltas + applied + SNAPSHOTS * snapshot + beside


def _correction_bytes(statement: PlanStatement, copies: int) -> int:
    """So many numbers of each trainable element where steps are corrected; else none."""
    return copies * FLOAT_BYTES * trainable_elements(statement.manifest) if statement.plan.corrects else 0


def memory_bytes(statement: PlanStatement) -> int:
    """RUNTIME_BYTES + 4 P (weights) + 4 T (gradients) + 8 T (AdamW's moments) + activations + what DoRA needs, of the worker
    in training.

    Of moments, SGD has one with momentum and none without. With FedProx 4 × trainable elements more: the base model that
    weights are pulled to; with SCAFFOLD as many: what gradients are corrected by.
    """
    trained, moments = trained_parameters(statement), statement.plan.local.optimizer.moments_a_weight
    state = FLOAT_BYTES * (parameters(statement) + (1 + moments) * trained)
    base = FLOAT_BYTES * trainable_elements(statement.manifest) if statement.plan.local.fedprox_mu else 0
    beside = base + _correction_bytes(statement, 1) + dora_bytes(statement)
    return RUNTIME_BYTES + state + beside + activation_bytes(statement)


def activation_bytes(statement: PlanStatement) -> int:
    """What the backward pass needs of the forward pass: b × s × (17 × width × layers + 3 × vocabulary) values.

    b is the micro-batch, s the sequence length with virtual tokens. 17 values a token, layer and unit of width are those of
    a transformer block without the attention matrix, which scaled dot-product attention does not keep; 3 of each token's
    logits are the logits, their softmax and the gradient. A value has 4 bytes, a block's 2 under bfloat16. With gradient
    checkpointing each layer keeps its input alone, 1 value, and the 17 are one layer's at a time.

    Source: Korthikanti et al., arXiv:2205.05198, section 4: 34 bytes at 2 bytes a value.
    """
    plan = statement.plan
    local, model = plan.local, plan.model
    width, layers = model.width, model.layers
    value_bytes = 2 if local.precision == "bfloat16" else FLOAT_BYTES
    tokens = _tokens_at_once(statement)
    values = layers + 17 if local.gradient_checkpointing else 17 * layers
    return tokens * (width * values * value_bytes + 3 * vocabulary(statement) * FLOAT_BYTES)


def _tokens_at_once(statement: PlanStatement) -> int:
    local = statement.plan.local
    return (local.micro_batch_size or local.batch_size) * (
        local.sequence_length + statement.plan.adapter.virtual_tokens
    )


def dora_bytes(statement: PlanStatement) -> int:
    """4 × 2 × b × s × outputs of all adapted layers + 4 × (inputs² + 3 × inputs × outputs) of the largest; 0 without DoRA.

    The gradient of a magnitude needs what the layer and its matrices gave, two values an output and token; with gradient
    checkpointing those of one block at a time. Each pass multiplies B A out, beside the unit matrix, and takes its norm with W.
    """
    adapter = statement.plan.adapter
    if not (isinstance(adapter, LoRA) and adapter.use_dora):
        return 0
    matrices = {tensor.name: tensor.shape for tensor in statement.manifest if len(tensor.shape) == 2}
    inputs = {name.removesuffix(_A): shape[1] for name, shape in matrices.items() if name.endswith(_A)}
    outputs = {name.removesuffix(_B): shape[0] for name, shape in matrices.items() if name.endswith(_B)}
    layers = [(inputs[name], outputs[name]) for name in inputs.keys() & outputs.keys()]
    at_once = statement.plan.model.layers if statement.plan.local.gradient_checkpointing else 1
    kept = 2 * _tokens_at_once(statement) * sum(width for _, width in layers) // at_once
    return FLOAT_BYTES * (kept + max((i * i + 3 * i * o for i, o in layers), default=0))


def vocabulary(statement: PlanStatement) -> int:
    """Tokens that the model knows; of a given tokenizer, the rows of the tallest matrix that is as wide as a token and no
    adapter's."""
    if statement.plan.model.vocab_size is not None:
        return statement.plan.model.vocab_size
    match statement.plan.tokenizer:
        case BytesTokenizer():
            return 257
        case BpeTokenizer(vocab_size=vocab_size):
            return vocab_size
    width = statement.plan.model.width
    adapted = statement.plan.adapter.type != "none"
    known = (tensor for tensor in statement.manifest if not adapted or tensor.group == "frozen")
    return max((tensor.shape[0] for tensor in known if len(tensor.shape) == 2 and tensor.shape[1] == width), default=0)
