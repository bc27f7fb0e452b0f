"""The alerts on what `chaos-gate export certificates` serves."""

from __future__ import annotations

from chaos.export.certificates import MATCHES, NOT_AFTER, PROBE
from chaos.export.rules import Group, Rule, gauge

SOON, EXPIRED = "DatabaseCertificateExpiresSoon", "DatabaseCertificateExpired"
DAY = 86_400
LEAF = f'{NOT_AFTER}{{role="leaf",source="db:5432"}}'
SEEN = f'{PROBE}{{source="db:5432"}}'
SERVED = f'{MATCHES}{{source="db:5432"}}'
RUNBOOK = "docs/certificate-rotation-sop.md"


def certificates(days: float) -> Group:
    """At most `days` left, ended, not to be seen, not as on disk.

    Soon fires without delay: time runs one way, so it does not flap. At least a leaf must be seen at all times; which
    intermediates, roots and lists there have to be is only known where they are watched, so each watched source that shows nothing
    is its own alert. promtool's clock starts at 0, so in a test a certificate's end is also how many seconds it has left.
    """
    gate = "sec.cert_expiry"
    what = "{{ $labels.role }} {{ $labels.subject }} ({{ $labels.source }})"
    left = f"{NOT_AFTER} - time()"
    hour = 3600
    return Group(
        name="chaos-gate.certificates",
        well={LEAF: gauge((days + 60) * DAY), SEEN: gauge(1), SERVED: gauge(1)},
        rules=(
            Rule(
                alert=SOON,
                expr=f"{left} <= {days:g} * {DAY}",
                severity="warning",
                summary=f"{what} ends within {days:g} days",
                description="{{ $value | humanizeDuration }} left. Rotate it by the SOP.",
                gate=gate,
                fires={LEAF: gauge(days * DAY + hour)},
                quiet=({LEAF: gauge(days * DAY + hour + 1)},),
                runbook=RUNBOOK,
            ),
            Rule(
                alert=EXPIRED,
                expr=f"{left} <= 0",
                severity="critical",
                summary=f"{what} has ended",
                description="PostgreSQL serves an expired certificate without a word; clients that verify refuse it.",
                gate=gate,
                fires={LEAF: gauge(hour)},
                quiet=({LEAF: gauge(hour + 1)},),
                runbook=RUNBOOK,
            ),
            Rule(
                alert="DatabaseCertificateNotSeen",
                expr=f"{PROBE} == 0",
                severity="critical",
                summary="{{ $labels.source }} shows no certificate",
                description="Nothing is known of its days left: the server, its TLS, or the file is gone.",
                gate=gate,
                held="5m",
                fires={SEEN: gauge(0)},
                quiet=({SEEN: "1x56 0x4"},),
                runbook=RUNBOOK,
            ),
            Rule(
                alert="DatabaseCertificateUnknown",
                expr=f'absent({NOT_AFTER}{{role="leaf"}})',
                severity="critical",
                summary="no server certificate is watched",
                description="The certificate exporter is down, or watches no server: no alert on days left can fire.",
                gate=gate,
                held="5m",
                fires={LEAF: "", LEAF.replace("leaf", "root"): gauge((days + 60) * DAY)},
                quiet=({LEAF: f"{(days + 60) * DAY:g}x56 stale"},),
                runbook=RUNBOOK,
            ),
            Rule(
                alert="DatabaseCertificateNotAsOnDisk",
                expr=f"{MATCHES} == 0",
                severity="critical",
                summary="{{ $labels.source }} does not serve the certificate on its disk",
                description="It was not reloaded, or it refused to: look for 'SSL configuration was not reloaded' in its log.",
                gate="sec.cert_rotation",
                held="1m",
                fires={SERVED: gauge(0)},
                runbook=RUNBOOK,
            ),
        ),
    )
