"""Alertmanager's routes for the exported alerts, by severity: `chaos-gate export alertmanager`. No secret is in it.

https://prometheus.io/docs/alerting/latest/configuration/. Receivers read their webhook's address from a file that the operators keep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chaos.export.policy import as_yaml
from chaos.export.prometheus import groups

if TYPE_CHECKING:
    from chaos.export.policy import Policy

OURS = 'gate=~".+"'  # every exported alert names its gate
# severity -> how long alerts are gathered, and after what time one that goes on is told again
PACE = {"critical": ("10s", "1h"), "warning": ("1m", "12h")}
SECRETS = "/etc/alertmanager/secrets"


def config(policy: Policy) -> str:
    """The whole file; whoever has one already takes the route below `routes`, the receivers and the inhibitions."""
    made = groups(policy)
    severities = [one for one in PACE if any(rule.severity == one for group in made for rule in group.rules)]
    document = {
        "global": {"resolve_timeout": "5m"},
        "route": {"receiver": "chaos-gate-warning", "group_by": ["alertname", "target"], "routes": [_routes(severities)]},
        "receivers": [_receiver(one) for one in severities],
        "inhibit_rules": _inhibitions(),
    }
    notes = [f"Put the webhooks' addresses into {SECRETS}/chaos-gate-{{{','.join(severities)}}}."]
    return policy.header("Alertmanager: routes and receivers", "alertmanager", notes) + as_yaml(document)


def _routes(severities: list[str]) -> dict[str, Any]:
    return {
        "receiver": "chaos-gate-warning",
        "matchers": [OURS],
        "routes": [
            {
                "receiver": f"chaos-gate-{one}",
                "matchers": [f'severity="{one}"'],
                "group_wait": PACE[one][0],
                "group_interval": "5m",
                "repeat_interval": PACE[one][1],
            }
            for one in severities
        ],
    }


def _receiver(severity: str) -> dict[str, Any]:
    hook = {"url_file": f"{SECRETS}/chaos-gate-{severity}", "send_resolved": True, "max_alerts": 50}
    return {"name": f"chaos-gate-{severity}", "webhook_configs": [hook]}


def _inhibitions() -> list[dict[str, Any]]:
    """A faster burn says what a slower one would; a target that is down, or not seen, says it all."""
    burns = ("ErrorBudgetBurnsFast", "ErrorBudgetBurns", "ErrorBudgetBurnsSlowly", "ErrorBudgetWears")
    slower = [
        {
            "source_matchers": [f'alertname="{fast}"'],
            "target_matchers": [f'alertname=~"{"|".join(burns[place + 1 :])}"'],
            "equal": ["target"],
        }
        for place, fast in enumerate(burns[:-1])
    ]
    down = {
        "source_matchers": ['alertname="TargetDown"'],
        "target_matchers": [OURS, 'alertname!="TargetDown"', 'severity="warning"', 'target=~".+"'],
        "equal": ["target"],
    }
    return [*slower, down]
