"""`chaos-gate canary`: a candidate beside the baseline, from step to step, until it is promoted or paused.

    drill      a bad release at the first weight: it has to be paused, or the pausing is worth nothing
    roll-out   weight up -> watch -> decide (chaos.checks.deciding), each second -> promote, hold, or all weight back

The state that a roll-back needs is on the disk before the first weight moves, so `chaos-gate rollback --state` works when this process
is dead. Both releases are started anew for the roll-out and warmed by the same requests: a warm one is not compared with a cold one.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from chaos.checks.canary import CAUGHT
from chaos.errors import ChaosError
from chaos.model import History, Kind, now
from chaos.rollout.handshakes import Handshakes, Refusals
from chaos.rollout.moving import ByCommand, ByEdge
from chaos.rollout.watching import Plan, Told, Watching
from chaos.traffic.requests import send

if TYPE_CHECKING:
    from chaos.checks.deciding import Decision
    from chaos.rig import Rig

WARM = 60  # requests to each release, one after the other, before it gets any that count
STATE = "rollout.json"
AT = 5  # per cent at which the drill takes place
DRILL = 60.0  # s in which a bad release has to have failed: it is asked rarely


def conduct(rig: Rig, plan: Plan, told: Told) -> dict[str, str]:
    """The drill, where a bad release can be started; then the candidate, where there is one. Gate -> why it does not apply.

    Raises ChaosError; the weight goes back.
    """
    target, absent = rig.config.target, {}
    own = target.deploy is not None
    if rig.ours:
        _drill(rig, plan, told)
    else:
        absent["roll.pause"] = "the drill needs an instance of its own, and the target runs elsewhere ([target] url)"
    if not own and not rig.ours:
        return {**absent, "roll.canary": "the releases run elsewhere, and no [target.deploy] says how their shares are moved"}
    if not own and target.candidate is None:
        return absent
    with ExitStack() as ending:
        shaken = _paths(rig, own=own)
        mover = _command(rig) if own else _edge(rig, ending)
        steps = plan.steps if not isinstance(mover, ByCommand) or mover.steps else (100,)
        _RollOut(rig, replace(plan, steps=steps), mover, shaken).run(told)
    return absent


def _command(rig: Rig) -> ByCommand:
    mover = ByCommand.of(rig)
    _warm(rig, mover.url)
    return mover


def _edge(rig: Rig, ending: ExitStack) -> ByEdge:
    """Both releases started anew, the same requests to each, and an edge before them."""
    rig.restart()
    candidate = rig.candidate(rig.start_path)
    ending.callback(candidate.stop)
    candidate.start()
    candidate.wait_ready(rig.config.target.startup_timeout)
    ports = {"baseline": rig.target.address[1], "candidate": candidate.address[1]}
    edge = rig.environment.edge(ports)
    ending.callback(edge.stop)
    for url in (rig.target.base_url, candidate.base_url):
        _warm(rig, url)
    mover = ByEdge.of(rig, edge, ports, "candidate")
    mover.candidate_url = candidate.base_url
    return mover


def _warm(rig: Rig, url: str) -> None:
    """The same requests to each release, not counted."""
    session = replace(rig.driver.session, base_url=url)
    reads = rig.driver.samples[Kind.READ]
    for number in range(WARM):
        rig.driver.call(send(session, reads[number % len(reads)], deadline=rig.driver.deadline))


def _paths(rig: Rig, *, own: bool) -> dict[str, Handshakes]:
    """Where each release's handshakes are counted; nothing where they share a path, or where none of ours is on it."""
    if own or not rig.ours:
        return {}
    refusals = Refusals(rig.environment.postgres)
    at = now()
    return {
        "baseline": Handshakes(rig.path, at, refusals),
        "candidate": Handshakes(rig.start_path, at, refusals),
    }


# -- the drill ------------------------------------------------------------------------------------------------------------------


def _drill(rig: Rig, plan: Plan, told: Told) -> None:
    """The target with a wrong CA file, at 5 %: as after a certificate mistake. Its failures are asked for on purpose."""
    wrong = rig.identity("untrusted-ca").chain_file
    bad = rig.second_instance("bad-release", values=rig.trusting(wrong, rig.start_path))
    ports = {"baseline": rig.target.address[1], "bad": bad.address[1]}
    edge = rig.environment.edge(ports)
    began, weight = now(), min(AT, plan.steps[0])
    watching: Watching | None = None
    try:
        shaken = _paths(rig, own=False)
        bad.start()
        with suppress(ChaosError):  # it need not come up: it is a bad release
            bad.wait_ready(3.0)
        mover = ByEdge.of(rig, edge, ports, "bad")
        mover.state.write(told.state)
        watching = Watching(rig, plan, mover, shaken)
        watching.load.start()
        seen, decision, facts = watching.watch(weight, dwell=DRILL, hold=0.0, until=lambda arm: arm.failed >= CAUGHT)
        facts |= watching.back()
    finally:
        if watching is not None:
            with suppress(ChaosError):
                watching.load.stop()
        bad.stop()
        edge.stop()
    facts |= {"gate": "roll.pause", "family": "canary-drill", "decision": decision.action, "first": "yes"}
    facts |= {"release": "a planted bad release (wrong CA file)", "title": "a bad release, planted: is it paused"}
    rig.posed.append((began, now()))
    told.record(seen.history("canary.drill", facts))
    told.say(f"drill: {decision.action} at {weight} %: {decision.why}")


# -- the candidate --------------------------------------------------------------------------------------------------------------


class _RollOut(Watching):
    """From the first weight to 100 %."""

    def run(self, told: Told) -> None:
        """Step by step. Whatever ends it before 100 %, the weight goes back, and the whole is recorded."""
        began, reached, ended = now(), 0, "interrupted"
        moved = True
        self.mover.state.write(told.state)
        self.load.start()
        try:
            for number, weight in enumerate(self.plan.steps):
                decision = self._step(weight, told, first=number == 0)
                if decision.action == "pause":
                    ended, moved = f"paused at {weight} %: {decision.why}", False
                    break
                reached = weight
            else:
                ended, moved = "promoted", False
        finally:
            self._finish(moved=moved)
            facts = {"gate": "roll.canary", "family": "canary-end", "title": "the roll-out as a whole", "reached": str(reached)}
            facts |= {"ended": ended, "steps": ",".join(map(str, self.plan.steps)), "seconds": f"{now() - began:.1f}"}
            told.record(History(experiment="canary", started=began, finished=now(), facts=facts))

    def _finish(self, *, moved: bool) -> None:
        """An end that nobody decided puts the weight back."""
        if moved:
            with suppress(ChaosError):
                self.mover.back()
        with suppress(ChaosError):
            self.load.stop()

    def _step(self, weight: int, told: Told, *, first: bool) -> Decision:
        told.say(f"{weight} % to the candidate")
        seen, decision, facts = self.watch(weight, dwell=self.plan.dwell, hold=self.plan.hold, say=told.say)
        failed: ChaosError | None = None
        if decision.action == "pause":
            try:
                facts |= self.back()
            except ChaosError as error:  # what paused it is kept all the same
                failed = error
        self.settle()
        facts |= {"gate": "roll.canary", "family": "canary", "decision": decision.action, "first": "yes" if first else "no"}
        facts |= {"title": f"the candidate at {weight} %"}
        told.record(seen.history(f"canary.{weight}", facts))
        told.say(f"{weight} %: {decision.action}: {decision.why}")
        if failed is not None:
            raise failed
        return decision
