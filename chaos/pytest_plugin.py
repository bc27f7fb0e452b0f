"""The pytest plugin: options, markers, one rig a worker, and `prove`, the one thing a suite's test has to call.

Nothing heavy is imported here: every pytest run on a machine that has the package installed loads this file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos.cases import Case
    from chaos.session import Session


def pytest_addoption(parser: pytest.Parser) -> None:
    """At most eight options; everything else is in chaos.toml."""
    group = parser.getgroup("chaos", "chaos-gate: fault injection and Go/No-Go gates")
    group.addoption("--chaos-config", metavar="FILE", help="the target's chaos.toml (default: the bundled reference service)")
    group.addoption("--chaos-profile", choices=("quick", "nightly"), default="quick", help="how much is run")
    group.addoption("--chaos-only", action="append", default=[], metavar="ID", help="only this gate or check (repeatable)")
    group.addoption("--chaos-seed", type=int, help="seed of everything that is random (default: a fresh one)")
    group.addoption("--chaos-evidence", metavar="DIR", help="where the evidence goes (default: evidence/<time>-<id>)")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; bind a worker's life to the runner's."""
    config.addinivalue_line("markers", "families(*names): run the test once for each case of these families (chaos/cases)")
    if hasattr(config, "workerinput"):
        from chaos.session import follow_runner  # noqa: PLC0415

        follow_runner(config.workerinput["workerid"])
    elif "CHAOS_RUN" not in os.environ and any(_suite(argument) for argument in config.args):
        # A bare `pytest tests/resilience`: the same evidence as `chaos-gate run` writes.
        from chaos.collector import Collector  # noqa: PLC0415

        collector = Collector.for_pytest(config)
        collector.own()
        config.pluginmanager.register(collector, "chaos-collector")


def _suite(argument: str) -> bool:
    """Whether a path on the command line is one of the suites, or in one."""
    place = Path(argument.partition("::")[0]).resolve()
    return any((part / "test_network.py").exists() or (part / "test_hosts.py").exists() for part in (place, place.parent))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item a case of the families that the test's marker names."""
    marker = metafunc.definition.get_closest_marker("families")
    if marker is None or "case" not in metafunc.fixturenames:
        return
    from chaos.session import cases_for  # noqa: PLC0415

    chosen = cases_for(marker.args, metafunc.config)
    metafunc.parametrize("case", [pytest.param(case, id=name) for name, case in chosen])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests whose families hold nothing that was selected are not run, rather than skipped."""
    empty = [item for item in items if item.get_closest_marker("families") and item.name.endswith("[NOTSET]")]
    if empty:
        config.hook.pytest_deselected(items=empty)
        items[:] = [item for item in items if item not in empty]
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """First what takes long, so that no worker is left alone with it; last what has to be alone on the machine."""
    if item.name.startswith("test_steady"):
        return 2
    return int(not item.name.startswith(("test_rollback", "test_backoff")))


@pytest.fixture(scope="session")
def chaos_session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """One worker's session: configuration, thresholds, the rig (started on first use), its segment of the evidence."""
    from chaos.session import Session  # noqa: PLC0415

    session = Session.of(request.config)
    yield session
    session.close()


@pytest.fixture
def prove(chaos_session: Session, request: pytest.FixtureRequest) -> Callable[[Case], None]:
    """`prove(case)`: run the experiment, judge what was recorded, and fail with the findings when they are not a pass."""

    def run(case: Case) -> None:
        __tracebackhide__ = True
        result = chaos_session.prove(case)
        request.node.user_properties.append(("chaos", result.as_json()))
        if result.error is not None:
            request.session.shouldstop = "the environment is broken"
            pytest.fail(result.error.render(), pytrace=False)
        if result.skipped:
            pytest.skip(result.skipped)
        if result.problems:
            pytest.fail("\n\n".join(result.problems), pytrace=False)

    return run
