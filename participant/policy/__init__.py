"""The institution's policy: which plans it takes part in, within which budgets, at which hours. Reasons are codes.

    policy.yaml ── load_policy ─▶ LoadedPolicy ── judge(policy, plan, usage) ─▶ findings ── verdict ─▶ accept, refuse or ask
                   PolicyWatch        │
                                      └────────── exhausted(policy, usage) ─▶ findings: no further round begins

All but loading and `usage_of` is pure: rules do no IO (participant.hours.gate decides about hours, in the same way).
"""

from participant.policy.describe import describe as describe
from participant.policy.estimates import Estimate as Estimate
from participant.policy.estimates import estimate as estimate
from participant.policy.loading import LoadedPolicy as LoadedPolicy
from participant.policy.loading import PolicyWatch as PolicyWatch
from participant.policy.loading import load_policy as load_policy
from participant.policy.model import Budgets as Budgets
from participant.policy.model import Policy as Policy
from participant.policy.rules import CODES as CODES
from participant.policy.rules import Check as Check
from participant.policy.rules import Finding as Finding
from participant.policy.rules import beyond_rounds as beyond_rounds
from participant.policy.rules import examine as examine
from participant.policy.rules import exhausted as exhausted
from participant.policy.rules import judge as judge
from participant.policy.rules import verdict as verdict
from participant.policy.usage import Usage as Usage
from participant.policy.usage import UsageCounter as UsageCounter
from participant.policy.usage import expected_usage as expected_usage
from participant.policy.usage import usage_of as usage_of
