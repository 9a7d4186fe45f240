"""What wrong institutions do to a model, by each aggregation rule: the reducer over real deltas of a small classifier.

    python benchmarks/robustness.py                          # a table: 15 institutions, 3 of them wrong, 3 seeds
    python benchmarks/robustness.py --rounds 20 --seeds 4,5 --strength 3 --plot robustness.svg
    python benchmarks/robustness.py --quick --json -

Each of 15 institutions trains a perceptron (20, 32, 10) on 400 points of ten overlapping classes, of which it has its own
shares; deltas go through `inspect_delta` and `reduce_round`, as at the coordinator, with max_delta_l2 at its default of 1000.
Wrong ones know all the right deltas, agree among themselves and always claim the most tokens that the plan allows; right ones
have 80 to 100 % of it (`--least-tokens`). What would be too long they scale down to what is let in. They send:

    sign flip            -6 × the right deltas' mean
    scaling              100 × what they learn from labels turned over
    noise                Gaussian, 30 times as long as a right delta
    label flip           what they learn from labels turned over
    a little is enough   mean - z × standard deviation, number by number (Baruch et al., arXiv:1902.06156, z by its formula)
    colluding third      -3 × the right deltas' mean, by 5 of 15

`--strength` multiplies the first three and the last.

Figures are accuracy on 4,000 points that nobody trains on after the last round, by the mean over seeds. `*` marks what is below
`HOLDS` of what the mean reaches where nobody is wrong; brackets, what is beyond the rule's breakdown point.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from measuring import machine, output
from numpy.typing import NDArray

from common import tensors
from common.errors import DeltaError, LLMasOSError
from common.plan.model import Plan
from common.plan.rules import RuleSection, Withstands
from common.reduce import ReduceJob, WeightedDelta, inspect_delta, reduce_round
from common.reduce.registry import RULES
from common.reduce.selftest import MemoryBlob
from common.statements.kinds import Tensor

INSTITUTIONS, WRONG, THIRD = 15, 3, 5
FEATURES, HIDDEN, CLASSES = 20, 32, 10
POINTS, TEST_POINTS, MOST_TOKENS = 400, 4000, 1000
HOLDS = 0.9

SHAPES = ((FEATURES, HIDDEN), (HIDDEN,), (HIDDEN, CLASSES), (CLASSES,))
MANIFEST = tuple(Tensor(name=f"w{at}", shape=shape) for at, shape in enumerate(SHAPES))
ENDS = np.cumsum([int(np.prod(shape)) for shape in SHAPES])
FIELDS: dict[str, dict[str, Any]] = {"norm-clipping": {"max_l2": "1"}}

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Data:
    """Points and their classes; all institutions' side by side."""

    points: Array
    classes: NDArray[np.int64]
    test_points: Array
    test_classes: NDArray[np.int64]


def make_data(random: np.random.Generator) -> Data:
    centres = random.standard_normal((CLASSES, FEATURES)) * 0.75

    def points(y: NDArray[np.int64]) -> Array:
        return np.asarray(centres[y] + random.standard_normal((*y.shape, FEATURES)))

    shares = random.dirichlet(np.full(CLASSES, 5.0), INSTITUTIONS)
    y_IP = np.array([random.choice(CLASSES, POINTS, p=share) for share in shares])
    test_y = random.integers(0, CLASSES, TEST_POINTS)
    return Data(points(y_IP), y_IP, points(test_y), test_y)


def unpack(flat: Array) -> list[Array]:
    """The tensors of models of shape (…, D)."""
    parts = np.split(flat, ENDS[:-1], axis=-1)
    return [part.reshape(*flat.shape[:-1], *shape) for part, shape in zip(parts, SHAPES, strict=True)]


def accuracy(model_D: Array, data: Data) -> float:
    w, b, v, c = unpack(model_D)
    scores = np.maximum(data.test_points @ w + b, 0) @ v + c
    return float((scores.argmax(axis=-1) == data.test_classes).mean())


def train(model_D: Array, x_IPF: Array, y_IP: NDArray[np.int64], random: np.random.Generator) -> Array:
    """Deltas, shape (I, D), of ten steps of SGD each at every institution."""
    flat_ID = np.repeat(model_D[None], len(x_IPF), axis=0)
    rows = np.arange(len(x_IPF))[:, None]
    for _ in range(10):
        batch = random.integers(0, POINTS, (len(x_IPF), 64))
        x, y = x_IPF[rows, batch], y_IP[rows, batch]
        w, b, v, c = unpack(flat_ID)
        hidden = np.maximum(x @ w + b[:, None], 0)
        scores = hidden @ v + c[:, None]
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        error = scores / scores.sum(axis=-1, keepdims=True) - np.eye(CLASSES)[y]
        back = (error @ v.transpose(0, 2, 1)) * (hidden > 0)
        gradients = (
            x.transpose(0, 2, 1) @ back,
            back.sum(axis=1),
            hidden.transpose(0, 2, 1) @ error,
            error.sum(axis=1),
        )
        flat_ID -= 0.1 / 64 * np.concatenate([each.reshape(len(x), -1) for each in gradients], axis=1)
    return np.asarray(flat_ID - model_D)


# --- attacks: from the right deltas, and what wrong ones learn from labels turned over ---------------------------------------


def a_little(right: Array, flipped: Array, random: np.random.Generator) -> Array:
    wrong, n = len(flipped), len(flipped) + len(right)
    supporters = n // 2 + 1 - wrong
    z = NormalDist().inv_cdf((len(right) - supporters) / len(right))
    return np.asarray(np.broadcast_to(right.mean(axis=0) - z * right.std(axis=0), flipped.shape))


def noise(right: Array, flipped: Array, random: np.random.Generator) -> Array:
    length = np.linalg.norm(right, axis=1).mean()
    return np.asarray(random.standard_normal(flipped.shape) * 30 * length / np.sqrt(flipped.shape[1]))


def turned(strength: float) -> Callable[[Array, Array, np.random.Generator], Array]:
    return lambda right, flipped, random: np.asarray(np.broadcast_to(-strength * right.mean(axis=0), flipped.shape))


ATTACKS: dict[str, tuple[int, Callable[[Array, Array, np.random.Generator], Array]]] = {
    "nobody": (0, lambda right, flipped, random: flipped),
    "sign flip": (WRONG, turned(6)),
    "scaling": (WRONG, lambda right, flipped, random: 100 * flipped),
    "noise": (WRONG, noise),
    "label flip": (WRONG, lambda right, flipped, random: flipped),
    "a little is enough": (WRONG, a_little),
    "colluding third": (THIRD, turned(3)),
}
MULTIPLIED = ("sign flip", "scaling", "noise", "colluding third")


@dataclass(frozen=True)
class Settings:
    """How long, how often, and how bad."""

    rounds: int
    seeds: list[int]
    least_tokens: float
    strength: float


# --- rounds ------------------------------------------------------------------------------------------------------------------


def plan_for(rule: str, wrong: int) -> Plan:
    """A plan for as many wrong ones as there are, or as many as the rule withstands at most of 15."""
    most = (INSTITUTIONS - 3) // 4 if rule == "bulyan" else wrong
    f = {} if rule in ("weighted-mean", "norm-clipping") else {"byzantine": min(wrong, most)}
    section = {"type": rule} | f | FIELDS.get(rule, {})
    source = {"apiVersion": "llmasos/v1", "name": "robustness", "quorum": INSTITUTIONS, "rule": section}
    return Plan.model_validate(source)


def within(rule: RuleSection, wrong: int) -> bool:
    """Whether so many are within the rule's breakdown point; a mean has none but 0, clipped or not."""
    return wrong == 0 or (isinstance(rule, Withstands) and rule.type != "norm-bounding" and rule.byzantine >= wrong)


def commit(plan: Plan, model_D: Array, deltas_ID: Array, tokens: list[int]) -> Array:
    """The new model, by the reducer."""
    header, model_header = tensors.trainable_header(MANIFEST), tensors.model_header(MANIFEST)
    sealed = []
    for at, (delta_D, num_tokens) in enumerate(zip(deltas_ID, tokens, strict=True)):
        blob = MemoryBlob(header + delta_D.astype("<f4").tobytes())
        inspect_delta(blob, header, max_l2=float(plan.max_delta_l2))
        sealed.append(WeightedDelta(f"i{at:02}", num_tokens, blob))
    out = bytearray()
    base = MemoryBlob(model_header + model_D.astype("<f4").tobytes())
    reduce_round(ReduceJob(plan, MANIFEST, base, sealed), out.extend)
    return np.frombuffer(out, "<f4", offset=len(model_header)).astype(np.float64)


def shortened(deltas_ID: Array, max_l2: float) -> Array:
    """As long as the coordinator lets in."""
    lengths = np.linalg.norm(deltas_ID, axis=1, keepdims=True)
    return np.asarray(deltas_ID * np.minimum(1, max_l2 / np.maximum(lengths, 1e-30)))


def run(rule: str, attack: str, settings: Settings, seed: int) -> float:
    """Accuracy after so many rounds; everything random follows from the seed, and is the same for every rule."""
    random = np.random.default_rng(seed)
    data = make_data(random)
    tokens = random.integers(int(settings.least_tokens * MOST_TOKENS), MOST_TOKENS + 1, INSTITUTIONS).tolist()
    model_D = np.concatenate([0.3 * random.standard_normal(shape).ravel() for shape in SHAPES])
    wrong, attacking = ATTACKS[attack]
    tokens[INSTITUTIONS - wrong :] = [MOST_TOKENS] * wrong
    y_IP = data.classes.copy()
    y_IP[INSTITUTIONS - wrong :] = CLASSES - 1 - y_IP[INSTITUTIONS - wrong :]
    plan = plan_for(rule, wrong)
    strength = settings.strength if attack in MULTIPLIED else 1.0
    for _ in range(settings.rounds):
        deltas_ID = train(model_D, data.points, y_IP, random)
        right, flipped = deltas_ID[: INSTITUTIONS - wrong], deltas_ID[INSTITUTIONS - wrong :]
        sent = shortened(strength * attacking(right, flipped, random), 0.999 * float(plan.max_delta_l2))
        try:
            model_D = commit(plan, model_D, np.concatenate([right, sent]), tokens)
        except DeltaError:
            break  # the model is so far off that right deltas are too long or no numbers: no round commits any more
    return accuracy(model_D, data)


def measure(settings: Settings) -> dict[str, Any]:
    """Every rule under every attack."""
    found: dict[str, Any] = {}
    for rule in RULES:
        found[rule] = {}
        for attack, (wrong, _) in ATTACKS.items():
            each = [run(rule, attack, settings, seed) for seed in settings.seeds]
            found[rule][attack] = {
                "accuracy": round(float(np.mean(each)), 4),
                "each": [round(value, 4) for value in each],
                "within": within(plan_for(rule, wrong).rule, wrong),
            }
    undisturbed = found["weighted-mean"]["nobody"]["accuracy"]
    cells = [cell for row in found.values() for cell in row.values()]
    for cell in cells:
        cell["holds"] = cell["accuracy"] >= HOLDS * undisturbed
    return {
        "institutions": INSTITUTIONS,
        **asdict(settings),
        "rules": found,
        "met": {"within their breakdown points": all(cell["holds"] for cell in cells if cell["within"])},
        "machine": machine.description(),
    }


def shown(cell: dict[str, Any]) -> str:
    text = f"{cell['accuracy']:.3f}{' ' if cell['holds'] else '*'}"
    return f" {text} " if cell["within"] else f"({text})"


def table(found: dict[str, Any]) -> str:
    header = ["rule", *(f"{name}\n{wrong} of {INSTITUTIONS}" for name, (wrong, _) in ATTACKS.items())]
    rows = [[rule, *(shown(cell) for cell in row.values())] for rule, row in found["rules"].items()]
    met = "all" if found["met"]["within their breakdown points"] else "NOT ALL"
    return (
        output.columns(header, rows)
        + f"\n\n{found['rounds']} rounds, seeds {', '.join(map(str, found['seeds']))}; *: below {HOLDS} of the undisturbed "
        f"mean's; ( ): beyond the breakdown point\nwithin their breakdown points: {met} hold"
    )


def plot(found: dict[str, Any]) -> str:
    """Accuracy by attack."""
    lines = {
        rule: [(float(at), max(cell["accuracy"], 0.001)) for at, cell in enumerate(row.values())]
        for rule, row in found["rules"].items()
    }
    names = ", ".join(f"{at} {name}" for at, name in enumerate(ATTACKS))
    return output.lines_plot(dict(lines), title="Accuracy under attack", x=names, y="accuracy", marks={"chance": 0.1})


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = output.parser(__doc__)
    parser.add_argument("--rounds", type=int, help="[40]")
    parser.add_argument("--seeds", type=output.numbers, help="[1,2,3]")
    parser.add_argument("--least-tokens", type=float, default=0.8, help="share of the most tokens [0.8]")
    parser.add_argument("--strength", type=float, default=1.0, help="multiplies attacks [1]")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (6 if options.quick else 40)
    options.seeds = options.seeds or ([1] if options.quick else [1, 2, 3])
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        with np.errstate(all="ignore"):  # a model that an attack drove off overflows
            found = measure(Settings(options.rounds, options.seeds, options.least_tokens, options.strength))
    except LLMasOSError as error:
        return output.failed(error)
    output.deliver(options, found, table, plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
