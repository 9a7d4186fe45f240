"""A ledger told statement by statement, with its state at each stage: tests of rules begin where their rule applies.

    story = tell()
    admit(story.at["opened"], story.contribution("north").envelope)

Stages: genesis, roster, plan, answered, opened, contributed, closed, opened-2, evaluating, paused, ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from common.clock import rfc3339
from common.errors import RefusalError
from common.ledger.cohort import round_seed
from common.ledger.rules import admit, start
from common.ledger.state import LedgerState
from common.statements.envelope import Statement
from common.statements.kinds import Control, Refusal
from tests.support.statements import (
    NAMES,
    NOW,
    RUN,
    Federation,
    a_blob_ref,
    a_contribution,
    a_federation,
    a_round_closed,
    a_round_opened,
)


@dataclass
class Story:
    """Signed statements by name, and the state after each stage."""

    federation: Federation
    at: dict[str, LedgerState] = field(default_factory=dict)
    said: dict[str, Statement] = field(default_factory=dict)

    def tell(self, stage: str, after: str, *statements: Statement) -> None:
        """Admit the statements after a stage; the last one gives the new stage its name."""
        state = self.at[after]
        for statement in statements:
            state = admit(state, statement.envelope).state
        self.at[stage], self.said[stage] = state, statements[-1]

    def opened(self, number: int = 1, *, parent: Statement | None = None, **changes: Any) -> Statement:
        seed = round_seed(self.federation.plan.digest, number)
        predicate = a_round_opened(self.federation.roster.digest, **{"round": number, "seed": seed} | changes)
        return self.federation.sign(predicate, parent=parent or self.federation.plan)

    def contribution(self, name: str, *, parent: Statement | None = None, by: str = "", **changes: Any) -> Statement:
        predicate = a_contribution(name, **changes)
        return self.federation.sign(predicate, parent=parent or self.said["opened"], by=by or name)

    def closed(self, *, parent: Statement | None = None, names: tuple[str, ...] = NAMES, **changes: Any) -> Statement:
        used = {name: self.said[name].digest for name in names}
        return self.federation.sign(a_round_closed(used, **changes), parent=parent or self.said["opened"])

    def closed_evaluation(self, **changes: Any) -> Statement:
        fields = {"round": 2, "outputs": {"model": a_blob_ref("model 1")}}
        return self.closed(parent=self.said["evaluating"], names=(), **fields | changes)

    def control(self, action: str, *, parent: Statement, **changes: Any) -> Statement:
        fields = {"action": action, "issued_at": rfc3339(NOW), "run": RUN, "reason": "operator"}
        return self.federation.sign(Control.model_validate(fields | changes), parent=parent)

    def refusal(self, *, parent: Statement, **changes: Any) -> Statement:
        fields: dict[str, Any] = {
            "institution": "north",
            "run": RUN,
            "round": 1,
            "refused_sha256": "ab" * 32,
            "code": "non-finite-delta",
            "attribution": "signed-by",
        }
        return self.federation.sign(Refusal(**fields | changes), parent=parent)


def tell() -> Story:
    """Three institutions, a round with all of them, and where it can go from there."""
    federation = a_federation()
    story = Story(federation)
    admission = start(federation.genesis.envelope)
    story.at["genesis"], story.said["genesis"] = admission.state, admission.statement
    story.tell("roster", "genesis", federation.roster)
    story.tell("plan", "roster", federation.plan)
    story.tell("answered", "plan", *(federation.answer(name) for name in NAMES))
    story.tell("opened", "answered", story.opened())
    for name in NAMES:
        story.said[name] = story.contribution(name)
    story.tell("contributed", "opened", *(story.said[name] for name in NAMES))
    story.tell("closed", "contributed", story.closed())
    model = {"model": a_blob_ref("model 1")}
    closed = story.said["closed"]
    story.tell("opened-2", "closed", story.opened(2, parent=closed, inputs=model))
    story.tell("evaluating", "closed", story.opened(2, parent=closed, inputs=model, task="evaluate"))
    story.tell("measured", "evaluating", story.closed_evaluation(outcome="abandoned", inputs=()))
    story.tell("paused", "closed", story.control("pause", parent=closed))
    story.tell("ended", "closed", story.control("run-ended", parent=closed, reason="rounds-done", **model))
    return story


@dataclass(frozen=True)
class Spoiled:
    """One statement that is right but for one thing: a row of a table of refusals."""

    claim: str
    stage: str
    make: Callable[[Story], Statement]
    code: str
    message: str
    """A regular expression."""

    def __str__(self) -> str:
        return self.claim.replace(" ", "-")

    def check(self, story: Story) -> None:
        """It is refused with this code and message, and the state before stays as it was."""
        before = story.at[self.stage]
        places = dict(before.places)
        with pytest.raises(RefusalError, match=self.message) as caught:
            admit(before, self.make(story).envelope)
        assert caught.value.code == self.code
        assert before.places == places
