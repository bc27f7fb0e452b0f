"""Prometheus alerting rules, written from gates.toml: `chaos-gate export prometheus`.

https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/. What cannot be seen is an alert of its own: an alert
on a value is silent when there is no value.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.export.certificates import MATCHES, NOT_AFTER, PROBE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from chaos.gates import Gate

SOON, EXPIRED = "DatabaseCertificateExpiresSoon", "DatabaseCertificateExpired"
DAY = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One alert. `held` is how long it must hold before it fires ('' at once)."""

    alert: str
    expr: str
    severity: str
    summary: str
    description: str
    gate: str
    held: str = ""

    def lines(self) -> Iterator[str]:
        """YAML. A JSON string is a YAML string, so nothing in a text can break the file."""
        yield f"      - alert: {self.alert}"
        yield f"        expr: {json.dumps(self.expr)}"
        if self.held:
            yield f"        for: {self.held}"
        yield f"        labels: {{severity: {self.severity}, gate: {json.dumps(self.gate)}}}"
        yield "        annotations:"
        yield f"          summary: {json.dumps(self.summary)}"
        yield f"          description: {json.dumps(self.description)}"
        yield '          runbook: "docs/certificate-rotation-sop.md"'


def certificates(days: float) -> tuple[Rule, ...]:
    """The alerts on what `chaos-gate export certificates` serves: at most `days` left, ended, not to be seen, not as on disk.

    Soon fires without delay: time runs one way, so it does not flap. At least a leaf must be seen at all times; which
    intermediates, roots and lists there have to be is only known where they are watched, so each watched source that shows nothing
    is its own alert.
    """
    gate = "sec.cert_expiry"
    what = "{{ $labels.role }} {{ $labels.subject }} ({{ $labels.source }})"
    left = f"{NOT_AFTER} - time()"
    return (
        Rule(
            alert=SOON,
            expr=f"{left} <= {days:g} * {DAY}",
            severity="warning",
            summary=f"{what} ends within {days:g} days",
            description="{{ $value | humanizeDuration }} left. Rotate it by the SOP.",
            gate=gate,
        ),
        Rule(
            alert=EXPIRED,
            expr=f"{left} <= 0",
            severity="critical",
            summary=f"{what} has ended",
            description="PostgreSQL serves an expired certificate without a word; clients that verify refuse it.",
            gate=gate,
        ),
        Rule(
            alert="DatabaseCertificateNotSeen",
            expr=f"{PROBE} == 0",
            severity="critical",
            summary="{{ $labels.source }} shows no certificate",
            description="Nothing is known of its days left: the server, its TLS, or the file is gone.",
            gate=gate,
            held="5m",
        ),
        Rule(
            alert="DatabaseCertificateUnknown",
            expr=f'absent({NOT_AFTER}{{role="leaf"}})',
            severity="critical",
            summary="no server certificate is watched",
            description="The certificate exporter is down, or watches no server: no alert on days left can fire.",
            gate=gate,
            held="5m",
        ),
        Rule(
            alert="DatabaseCertificateNotAsOnDisk",
            expr=f"{MATCHES} == 0",
            severity="critical",
            summary="{{ $labels.source }} does not serve the certificate on its disk",
            description="It was not reloaded, or it refused to: look for 'SSL configuration was not reloaded' in its log.",
            gate="sec.cert_rotation",
            held="1m",
        ),
    )


def rules(gates: Mapping[str, Gate]) -> str:
    """The whole file."""
    lines = [
        "# Written by `chaos-gate export prometheus` from gates.toml and [gates] of chaos.toml. Load it with rule_files.",
        "groups:",
        "  - name: chaos-gate.certificates",
        "    rules:",
    ]
    for rule in certificates(gates["sec.cert_expiry"].limit):
        lines += rule.lines()
    return "\n".join(lines) + "\n"
