"""Plans of runs: what the policy and people say to them, and the answers that are signed."""
