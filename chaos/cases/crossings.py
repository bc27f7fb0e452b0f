"""Network faults crossed with the state of connections, direction and length, generated; and what a path does beside breaking once."""

from __future__ import annotations

from chaos.cases.case import ALWAYS, Case
from chaos.faults.crossing import DIRECTIONS, LENGTHS, STATES, directions
from chaos.faults.network import NETWORK

GATES = ("res.network", *ALWAYS)
SAMPLE = "cross.sample"

CROSSED: tuple[Case, ...] = tuple(
    Case(
        id=f"cross.{fault.id}.{state}.{direction}.{length}",
        family="cross",
        title=f"{fault.title}, {text}{', ' if DIRECTIONS[direction] else ''}{DIRECTIONS[direction]}, {LENGTHS[length]}",
        gates=GATES,
        what=f"{fault.id}.{state}.{direction}.{length}",
        scope=state,
        nightly=True,
    )
    for fault in NETWORK
    for direction in directions(fault)
    for state, text in STATES.items()
    for length in LENGTHS
)

PATHS: tuple[Case, ...] = (
    Case(
        id=SAMPLE,
        family="cross",
        title="one of the short crossings of network fault, state of connections and direction, by the seed",
        gates=GATES,
        what="sample",
    ),
    *CROSSED,
    Case(id="flapping", family="flapping", title="the path goes down and up every few 100 ms", gates=GATES, nightly=True),
    Case(
        id="replica",
        family="replica",
        title="one of two replicas loses its path to the database; the other one must not notice",
        gates=GATES,
        nightly=True,
    ),
)
