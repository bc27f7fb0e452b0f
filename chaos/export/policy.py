"""What everything that is exported is made of: thresholds, the target's name and its metrics; and how a file of it begins."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from chaos import __version__
from chaos.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chaos.export.signals import Signals
    from chaos.gates import Gate

MONTH, SOAK = 30 * 24, 48  # hours: of an error budget, and of the soak that may burn 5 % of it
# Multi-window, multi-burn-rate: (burn rate, long window, short window, severity). Google, The Site Reliability Workbook (2018),
# chapter 5, 'Multiwindow, Multi-Burn-Rate Alerts': 2 % of a month's budget in an hour, 5 % in six, 10 % in a day, 10 % in three.
BURNS = (
    (14.4, "1h", "5m", "critical"),
    (6.0, "6h", "30m", "critical"),
    (3.0, "1d", "2h", "warning"),
    (1.0, "3d", "6h", "warning"),
)
SATURATED = 0.9  # of a pool: what is left is for a burst
RETRIED = (
    0.1  # retries a request (Google, Site Reliability Engineering, 2016, chapter 21: a client's retries, 10 % of its requests)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """`target` is chaos.toml's name; `job` what Prometheus calls it ('' any); `metrics` None without [target.metrics]."""

    target: str
    gates: Mapping[str, Gate]
    metrics: Signals | None
    job: str = ""

    def __post_init__(self) -> None:
        """UsageError for a limit that no alert can be made of: it would always fire, or never."""
        for key, gate in self.gates.items():
            if key in {"rel.p95", "rel.p99"} and not 0 < gate.seconds < math.inf:
                raise _impossible(f"{key} = {gate.seconds * 1000:g} ms: every request is slower", "write milliseconds above 0")
            if key in {"rel.availability", "rel.error_budget", "sec.tls_handshake"} and not 0 <= gate.limit < 1:
                raise _impossible(f"{key} is {gate.threshold}: no share of requests is that", "write per cent, from 0 to 100")
            if key == "sec.cert_expiry" and not 0 <= gate.limit < math.inf:
                raise _impossible(f"{key} = {gate.limit:g} days", "write days, from 0 on")

    @property
    def shown(self) -> str:
        """The target's name within an annotation, which is a Go template."""
        return " ".join(self.target.split()).replace("{{", '{{ "{{" }}')

    @property
    def slug(self) -> str:
        """The target's name as Kubernetes takes one (RFC 1123 label, with room for what is put behind it)."""
        return re.sub(r"[^a-z0-9]+", "-", self.target.lower()).strip("-")[:40].strip("-") or "target"

    @property
    def digest(self) -> str:
        """SHA-256 of all gates: of the member `gates` of a run's policy.json, as JSON with sorted keys and no spaces."""
        rows = [asdict(gate) for gate in self.gates.values()]
        return hashlib.sha256(json.dumps(rows, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def budget(self) -> float:
        """The share of requests that may fail."""
        return self.gates["rel.availability"].limit

    @property
    def burn_limit(self) -> float:
        """What a soak may burn of a month's error budget, as a share of it: 0.05 by default. 0 when there is no budget."""
        return self.gates["rel.error_budget"].limit * SOAK / (self.budget * MONTH) if self.budget else 0.0

    def header(self, what: str, how: str, notes: Iterable[str] = ()) -> str:
        """Comment lines: what it is, who wrote it and from which thresholds. The same input gives the same bytes."""
        lines = [
            f"{what} for {json.dumps(self.target)}. Written by `chaos-gate export {how}`: change chaos.toml, not this file.",
            f"chaos-gate {__version__} · gate policy sha256:{self.digest}",
            *notes,
        ]
        return "".join(f"# {' '.join(line.split())}\n" for line in lines)


def _impossible(what: str, remedy: str) -> UsageError:
    return UsageError(what, remedy=remedy, where="[gates]")


def number(value: float) -> str:
    """Shortest decimal without an exponent, for PromQL: 0.0144."""
    return f"{value:.10f}".rstrip("0").rstrip(".") or "0"


def as_yaml(*documents: Any) -> str:
    """YAML in the order of the input; the documents of one file are separated by '---'."""
    import yaml  # noqa: PLC0415  (the command line is imported for every command)

    class Plain(yaml.SafeDumper):
        """Without anchors: the same list in two places is written twice."""

        def ignore_aliases(self, data: Any) -> bool:
            del data
            return True

    return "---\n".join(
        yaml.dump(one, Dumper=Plain, sort_keys=False, width=1_000, allow_unicode=True, default_flow_style=False)
        for one in documents
    )
