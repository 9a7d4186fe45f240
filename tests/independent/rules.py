"""docs/protocol.md#rules: many deltas into one, whole arrays at a time."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tests.independent.statements import Json, must

Floats = NDArray[np.float64]


def total(values: Floats) -> np.float64:
    """#sums: additions in float64 by one fixed tree."""

    def fold(sums: list[np.float64]) -> np.float64:
        if len(sums) < 2:
            return sums[0] if sums else np.float64(0)
        k = 1 << (len(sums) - 1).bit_length() - 1
        return fold(sums[:k]) + fold(sums[k:])

    leaves = np.zeros((-(-len(values) // 65536), 65536))
    leaves.reshape(-1)[: len(values)] = values
    while leaves.shape[1] > 1:
        half = leaves.shape[1] // 2
        leaves = leaves[:, half:] + leaves[:, :half]
    return fold(list(leaves[:, 0]))


def least(rule: Json) -> int:
    """How many deltas a round of this rule needs."""
    f = rule.get("byzantine", 1)
    if rule["type"] in ("weighted-mean", "norm-clipping"):
        return 1
    if rule["type"] == "multi-krum":
        return int(max(2 * f + 3, (rule.get("keep") or 1) + f + 2))
    return int({"krum": 2 * f + 3, "bulyan": 4 * f + 3}.get(rule["type"], 2 * f + 1))


def check_plan(plan: Json) -> None:
    """A quorum that the rule's guarantee needs, and no cohort that is too large for it.

    Raises:
        Failed: it is another one.
    """
    rule, size = plan["rule"], plan["cohort"].get("size")
    must(least(rule) <= plan["quorum"], "history", "a quorum too small for the rule")
    if rule["type"] not in ("weighted-mean", "norm-clipping", "norm-bounding"):
        must(max(plan["quorum"], size or 0) <= 1024, "history", "a cohort too large for the rule")
    local, weighting = plan["local"], plan["weighting"]
    if weighting["type"] == "bytes":
        most = local["steps"] * local["batch_size"] * local["sequence_length"] * weighting["max_bytes_a_token"]
        causal = plan.get("task", {"type": "causal-lm"})["type"] == "causal-lm"
        must(most < 1 << 29 and causal, "history", "a plan that does not go with bytes")
    if local.get("correction", {"type": "none"})["type"] == "scaffold":
        optimizer, schedule = local.get("optimizer", {}), local.get("schedule", {"type": "cosine"})
        by_itself = (
            optimizer.get("type") == "sgd" and optimizer.get("momentum", "0") == local.get("fedprox_mu", "0") == "0"
        )
        ends_above_0 = schedule["type"] == "constant" or schedule.get("final_fraction", "0.1") != "0"
        must(by_itself and ends_above_0, "history", "local training that is not scaffold's")
        as_it_is = (
            plan.get("codec", {"type": "float32"})["type"] == (plan.get("downlink") or {"type": "float32"})["type"]
        )
        types = rule["type"], plan["server_optimizer"]["type"], plan.get("mode", {"type": "synchronous"})["type"]
        must(
            types == ("weighted-mean", "sgd", "synchronous") and as_it_is,
            "history",
            "a plan that scaffold does not go with",
        )
        must(plan.get("codec", {"type": "float32"})["type"] == "float32", "history", "scaffold needs codec float32")


def combined(rule: Json, tokens: list[int], deltas: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """g of the deltas' numbers, institutions in ascending order.

    Raises:
        Failed: too few.
    """
    must(least(rule) <= len(deltas), "rounds", "wrong-delta-count")
    kind, f, n = rule["type"], rule.get("byzantine", 1), len(deltas)
    weights = [float(each) for each in tokens]
    if kind == "median":
        ranked = ascending(deltas)
        return mean([ranked[n // 2]] if n % 2 else [ranked[n // 2 - 1], ranked[n // 2]])
    if kind == "trimmed-mean":
        return mean(ascending(deltas)[f : n - f])
    if kind == "bulyan":
        return closest_to_median([deltas[i] for i in picked(squared_distances(deltas), n - 2 * f, f)], n - 4 * f)
    if kind == "krum":
        return mean([deltas[by_score(squared_distances(deltas), list(range(n)), n - f - 2)[0]]])
    if kind == "multi-krum":
        best = by_score(squared_distances(deltas), list(range(n)), n - f - 2)
        return mean([deltas[i] for i in sorted(best[: rule.get("keep") or n - f - 2])])
    if kind == "geometric-median":
        weights = weiszfeld(weights, squared_distances(deltas), rule)
        return average(weights, deltas, in_turn(weights))
    if kind in ("norm-clipping", "norm-bounding"):
        norms = [math.sqrt(total(delta.astype(np.float64) ** 2)) for delta in deltas]
        bound = (
            float(rule["max_l2"]) if kind == "norm-clipping" else float(rule["factor"]) * sorted(norms)[(n - 1) // 2]
        )
        scaled = [w * (bound / norm) if norm > bound else w for w, norm in zip(weights, norms, strict=True)]
        return average(scaled, deltas, float(sum(tokens)))
    return average(weights, deltas, float(sum(tokens)))


def in_turn(values: list[float]) -> float:
    """Added one after the other, from 0.0 on."""
    result = 0.0
    for value in values:
        result = result + value
    return result


def average(coefficients: list[float], deltas: list[NDArray[np.float32]], divisor: float) -> NDArray[np.float32]:
    acc = np.zeros(len(deltas[0]))
    for coefficient, delta in zip(coefficients, deltas, strict=True):
        acc = acc + np.float64(coefficient) * delta.astype(np.float64)
    return (acc / np.float64(divisor)).astype(np.float32)


def mean(deltas: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return average([1.0] * len(deltas), deltas, float(len(deltas)))


def ascending(deltas: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    return list(np.sort(np.stack(deltas), axis=0))


def squared_distances(deltas: list[NDArray[np.float32]]) -> Floats:
    found = np.zeros((len(deltas), len(deltas)))
    for i, j in combinations(range(len(deltas)), 2):
        found[i, j] = found[j, i] = total((deltas[i].astype(np.float64) - deltas[j].astype(np.float64)) ** 2)
    return found


def by_score(squared: Floats, left: list[int], closest: int) -> list[int]:
    """Of those left, the best of Krum first."""
    scores = {i: in_turn(sorted(float(squared[i, j]) for j in left if j != i)[:closest]) for i in left}
    return sorted(left, key=lambda i: (scores[i], i))


def picked(squared: Floats, wanted: int, f: int) -> list[int]:
    left, chosen = list(range(len(squared))), []
    for _ in range(wanted):
        chosen.append(by_score(squared, left, max(1, len(left) - f - 2))[0])
        left.remove(chosen[-1])
    return sorted(chosen)


def closest_to_median(deltas: list[NDArray[np.float32]], kept: int) -> NDArray[np.float32]:
    """One number after the other, dropping whichever end is farther, the upper one of equals."""
    columns = np.stack(deltas).T.astype(np.float64)
    found = np.zeros(len(columns))
    for at, column in enumerate(columns):
        x = sorted(column.tolist())
        m = (x[(len(x) - 1) // 2] + x[len(x) // 2]) / 2.0
        while len(x) > kept:
            del x[0 if m - x[0] > x[-1] - m else -1]
        found[at] = in_turn(x) / float(kept)
    return found.astype(np.float32)


def weiszfeld(weights: list[float], squared: Floats, rule: Json) -> list[float]:
    coefficients, smoothing = weights, float(rule["smoothing"])
    for _ in range(rule["iterations"]):
        whole = in_turn(coefficients)
        shares = [each / whole for each in coefficients]
        to_others = [
            in_turn([share * float(squared[j, i]) for j, share in enumerate(shares)]) for i in range(len(shares))
        ]
        spread = in_turn([share * each for share, each in zip(shares, to_others, strict=True)])
        away = [math.sqrt(max(0.0, each - 0.5 * spread)) for each in to_others]
        coefficients = [weight / max(each, smoothing) for weight, each in zip(weights, away, strict=True)]
    return coefficients
