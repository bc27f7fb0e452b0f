"""What the checks are held against: the target's own promises and the policy, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


# Shares of observations that may be bad, by gate id: the defaults of gates.toml, which has the last word.
RATES = {
    "rel.availability": 0.001,
    "rel.error_budget": 0.00075,
    "rel.p95": 0.05,
    "rel.p99": 0.01,
    "sec.tls_handshake": 0.001,
    "sec.unknown_host_400": 0.01,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`recovery` and `fail_fast` in seconds; `schema` is 'problem+json' or a JSON Schema; `seconds` are latency limits by gate id,
    `rates` the shares that may be bad; `retention` is in days.

    `slack` is what is granted beyond `fail_fast` before a late answer counts (a timer set to exactly the limit fires after it);
    the sender's own stalls are taken off separately. `accepted` are the keys of the pen-test findings that were accepted (None: no run
    was), which says what is new; nothing critical is excused by it.
    """

    recovery: float = 10.0
    fail_fast: float = 5.0
    slack: float = 0.5
    schema: str | Mapping[str, Any] | None = "problem+json"
    policy: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=lambda: dict(RATES))
    accepted: frozenset[str] | None = None
    retention: float = 30.0
    rerun: str = "chaos-gate run"
    seed: int = 0

    def again(self, check: str) -> str:
        """The one line that runs a check again."""
        return f"{self.rerun} --only {check} --seed {self.seed}"
