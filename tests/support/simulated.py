"""Results of a simulation that never ran, valid by default; a test changes the one thing that it is about."""

from __future__ import annotations

import json
from typing import Any

from common.blobs.reference import BlobRef
from common.statements.kinds import InitialBlobs, PlanStatement, Tensor
from llmasos.simulation.results import Comparison, Counted, Results, Scores, Timing, final_scores
from llmasos.simulation.watch import parse_view
from tests.support.fake_daemons import NAMES, a_view
from tests.support.plans import a_plan


def a_statement(**plan: Any) -> PlanStatement:
    """A plan statement with one tensor."""
    blob = BlobRef(algorithm="blake3", size=10, root="cd" * 32)
    return PlanStatement(
        run="tiny-abc123",
        plan=a_plan(**plan),
        manifest=(Tensor(name="weight", shape=(2,)),),
        initial=InitialBlobs(model=blob, tokenizer=blob),
    )


def a_comparison() -> Comparison:
    """north is better off alone: its federated perplexity is exp(4.0) = 54.6."""
    alone = {
        "north": Scores(90.0, {"north": 50.0, "south": 120.0, "west": 130.0}),
        "south": Scores(80.0, {"north": 100.0, "south": 70.0, "west": 90.0}),
        "west": Scores(85.0, {"north": 100.0, "south": 95.0, "west": 75.0}),
    }
    return Comparison(alone, Scores(55.0, {"north": 50.0, "south": 55.0, "west": 60.0}), steps=4, batch_multiplier=3)


def some_results(**changes: Any) -> Results:
    """Three institutions, two rounds, with a comparison and a sample."""
    view = parse_view(json.dumps(a_view()).encode())
    fields: dict[str, Any] = {
        "title": "Simulation",
        "statement": a_statement(),
        "institutions": NAMES,
        "view": view,
        "succeeded": True,
        "comparison": a_comparison(),
        "federated": final_scores(view),
        "ngram": Counted(Scores(65.0, {"north": 60.0, "south": 65.0, "west": 70.0}), order=5, num_tokens=12_345),
        "sample_prompt": "import ",
        "sample_text": "os\n<b>bold</b>",
        "timing": Timing(1.0, 18.0, 10.0, 2.0, 31.0),
        "versions": {"python": "3.11.7"},
    }
    return Results(**(fields | changes))
