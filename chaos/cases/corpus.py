"""The corpus: requests that deserve a 4xx, steady, under each fault, and on the candidate."""

from __future__ import annotations

from chaos.cases.case import Case

GATE = ("rel.no_400_to_500",)
FAULTS = (
    ("refused", "refused", "new", "connections refused"),
    ("reset", "reset", "new", "connections reset (RST)"),
    ("blackhole", "blackhole", "pooled", "black hole: open, and silent both ways"),
    ("cut", "cut", "pooled", "cut in mid-stream"),
    ("slow", "slow", "pooled", "each answer of the database a second late"),
    ("certificate", "expired", "", "PostgreSQL itself serves an expired certificate"),
    ("tls-off", "tls-off", "", "PostgreSQL offers no TLS"),
    ("slots", "slots", "", "max_connections reached"),
    ("locks", "locks", "", "every table locked"),
    ("restart", "immediate", "", "PostgreSQL crashes and comes back"),
)

CORPUS: tuple[Case, ...] = (
    Case(
        id="corpus.sample",
        family="corpus-sample",
        title="a sample of requests that deserve a 4xx, steady and with connections to the database refused",
        gates=GATE,
        what="refused",
        scope="new",
    ),
    Case(
        id="corpus.steady",
        family="corpus-steady",
        title="requests that deserve a 4xx, with nothing broken",
        gates=GATE,
        injects=False,
        nightly=True,
    ),
    *(
        Case(
            id=f"corpus.{name}",
            family="corpus-fault",
            title=f"requests that deserve a 4xx: {title}",
            gates=GATE,
            what=what,
            scope=scope,
            nightly=True,
        )
        for name, what, scope, title in FAULTS
    ),
    *(
        Case(
            id=name,
            family="corpus-candidate",
            title=f"{what} requests that deserve a 4xx, on the candidate beside the baseline",
            gates=GATE,
            needs=("candidate",),
            injects=False,
            nightly=nightly,
        )
        for name, what, nightly in (("corpus.candidate", "a sample of", False), ("corpus.candidate-all", "all", True))
    ),
)
