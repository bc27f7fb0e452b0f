"""An edge in front of the running target for the length of an experiment: what gets through it, and what it answers by itself.

    client of ours --TLS, HTTP/1.1 and HTTP/2--> edge --> relay --> target

The relay sees what the edge makes of each request. The edge is our own Caddy, or the team's ([target.edge]).
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from chaos.certs import Entry
from chaos.config import expand
from chaos.environments.local.front import Front
from chaos.processes import free_port
from chaos.traffic import edge as through
from chaos.traffic import layers, poison
from chaos.traffic.host_names import bare_name, is_address
from chaos.traffic.host_target import asked_on
from chaos.traffic.raw import exchange
from chaos.traffic.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.cases import Case
    from chaos.certs import Identity
    from chaos.environments import Front as AnyFront
    from chaos.experiment.core import Recording
    from chaos.model import History, Layer
    from chaos.rig import Rig
    from chaos.traffic.host_names import HostNames
    from chaos.traffic.raw import RawAnswer

ELSEWHERE = "the target runs elsewhere ([target] url), behind whatever edge it has: no edge of ours stands in front of it"


def edge(rig: Rig, case: Case, recording: Recording) -> History:
    """Everything through the edge: `case.what` names a class. Facts 'edge' (whose), 'edge.h2' (why not), 'edge.h1.adds'."""
    if not rig.ours:
        recording.facts["absent"] = ELSEWHERE
        return recording.history()
    on = asked_on(rig.config.target, rig.driver.session)
    per_class = int(case.what)
    words = through.words_for(on.names, seed=rig.seed, path=on.path, headers=on.headers, others=on.others, health=on.health)
    facts, origin = recording.facts, rig.target.address
    learned = layers.learn(origin, host=on.names.allowed[0], path=on.path, headers=on.headers)
    with Relay(origin) as relay, running(rig, relay.port, on.names, facts) as front:
        over = through.Edge(address=("127.0.0.1", front.port), relay=relay, learned=learned)
        found = list(through.observe(over, words, "h1", per_class=per_class))
        facts["edge.h1.adds"] = through.own_forwarding(found, relay)
        if through.speaks_h2(over, words.g):
            found += through.observe(over, words, "h2", per_class=per_class)
        else:
            facts["edge.h2"] = "the edge takes no HTTP/2 (ALPN)"
        front.check()
        found += poison.attempts(lambda request: over.ask_raw(request, words.g), words, "h1")
        front.check()

    def direct(request: bytes) -> tuple[RawAnswer, Layer]:
        answer = exchange(origin, request, timeout=over.timeout)
        return answer, learned.layer(answer)

    found += poison.attempts(direct, words, "origin")
    rig.check_alive()
    facts["edge.per_class"] = str(per_class)
    recording.extra = tuple(found)
    return recording.history()


@contextlib.contextmanager
def running(rig: Rig, origin_port: int, names: HostNames, facts: dict[str, str]) -> Iterator[AnyFront]:
    """The edge, up, in front of `origin_port`; gone afterwards."""
    identity = rig.environment.authority.issue(_certificate(names))
    own = rig.config.target.edge
    facts["edge"] = "the team's own ([target.edge])" if own else "our Caddy"
    front: AnyFront = _own(rig, origin_port, identity) if own else rig.environment.front(origin_port, identity)
    try:
        yield front
    finally:
        front.stop()


def _own(rig: Rig, origin_port: int, identity: Identity) -> Front:
    """[target.edge], started as the target itself is: the caller's environment, its own on top, in the target's directory."""
    target = rig.config.target
    assert target.edge is not None
    port = free_port()
    work = rig.run_dir / rig.worker / "edge"
    work.mkdir(parents=True, exist_ok=True)
    values = {
        "edge_port": str(port),
        "edge_cert": str(identity.chain_file),
        "edge_key": str(identity.key_file),
        "origin_port": str(origin_port),
        "work_dir": str(work),
    }
    env: dict[str, str] = {**os.environ, **expand(dict(target.edge.env), values)}
    return Front(
        expand(target.edge.start, values),
        port=port,
        reaper=rig.reaper,
        cwd=target.cwd,
        env=env,
        log=work / "edge.log",
        patience=target.startup_timeout,
        where=target.where("edge"),
    )


def _certificate(names: HostNames) -> Entry:
    """For every name of [target.hosts] that a certificate can hold; a '*' elsewhere than in front cannot be there."""
    listed = dict.fromkeys(bare_name(name) for _, name in names.served())
    held = [f"ip:{name.strip('[]')}" if is_address(name) else f"dns:{name}" for name in listed if "*" not in name[1:]]
    return Entry(name="edge", row="accept", must="connect", why="the edge's own", names=(*held, "dns:localhost", "ip:127.0.0.1"))


__all__ = ["edge", "running"]
