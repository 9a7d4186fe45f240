"""What each kind of statement must be to follow (docs/protocol.md#parents). `common.ledger.rules` reads from here.

following.py    parents, runs
approvals.py    who must have approved a roster, a plan or a release
membership.py   roster, leave, erased
plans.py        plan, answer
rounds.py       round-opened, contribution, refusal, round-closed
controls.py     control: runs paused, resumed, ended
lineage.py      control recovery: a new lineage
releases.py     attestation, release
"""
