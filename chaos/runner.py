"""`chaos-gate run`: pytest on the packaged suites, in this process, with the collector as a plugin."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chaos.cases import known_names, select
from chaos.collector import Collector, Request, sweep_stale
from chaos.errors import EnvironmentFault
from chaos.gates import load as load_gates
from chaos.gates import named
from chaos.session import scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.terminal import Screen

PLUGINS = ("xdist", "xdist.looponfail", "chaos.pytest_plugin")


def suites() -> list[Path]:
    """tests/resilience and tests/security: from the wheel, or from the checkout that this package is run from."""
    packaged = Path(__file__).parent / "suites"
    root = packaged if packaged.is_dir() else Path(__file__).parent.parent / "tests"
    return [root / "resilience", root / "security"]


def execute(request: Request, *, workers: int | None, backend: str, as_json: bool) -> int:
    """Run, conclude, print; returns the exit code."""
    from chaos.terminal import Screen, run_json  # noqa: PLC0415

    check_names(request.only)
    if backend == "docker":
        raise EnvironmentFault(
            "the docker backend is not in this version",
            remedy="use --backend local, which needs no Docker",
            where="--backend docker",
        )
    screen = Screen(sys.stderr if as_json else sys.stdout)
    sweep_stale(scratch())
    collector = Collector.prepare(request, screen=screen)
    collector.workers = _workers(collector, workers)
    try:
        collector.own()
        _header(collector, screen)
        _get_parts(collector, screen)
        _pytest(collector)
        run, code = collector.conclude()
    finally:
        collector.release()
    if run.findings or collector.error is None:  # where nothing could even start, the error is all there is to say
        screen.summary(run, collector.directory)
    if collector.error is not None:
        sys.stderr.write(f"chaos-gate: {collector.error.render()}\n")
    if as_json:
        sys.stdout.write(run_json(run) + "\n")
    return code


def check_names(only: tuple[str, ...]) -> None:
    """Each --only has to name something; else a UsageError with 'did you mean'."""
    for name in only:
        if not select((name,)):
            named(name, known_names() | set(load_gates()))


def _workers(collector: Collector, given: int | None) -> int:
    cases = [case for case in select(collector.request.only) if not case.absent(collector.config.target)]
    asked = given or collector.config.run.workers or min(4, 2 * (os.cpu_count() or 1))
    return max(1, min(asked, len(cases)))


def _header(collector: Collector, screen: Screen) -> None:
    screen.header(
        target=collector.config.target.name,
        profile=collector.request.profile,
        seed=collector.seed,
        workers=collector.workers,
    )


def _get_parts(collector: Collector, screen: Screen) -> None:
    """What may have to be built or copied once a machine is, before the workers ask for it all at once."""
    if collector.config.target.url is not None:
        return
    from chaos.environments.local import provide  # noqa: PLC0415  (late: not every run has an environment)

    provide(collector.config.environment, say=lambda text: screen.phase("set up", text, None))


def _pytest(collector: Collector) -> None:
    """Pytest's own words go to pytest.log in the evidence: people read the screen, and machines evidence.json."""
    request = collector.request
    arguments = [
        *(str(path) for path in suites()),
        f"--rootdir={suites()[0].parent}",
        "-c",
        os.devnull,
        "-p",
        "no:cacheprovider",
        "--strict-markers",
        "-q",
        "--tb=short",
        f"--chaos-profile={request.profile}",
        *(f"--chaos-only={name}" for name in request.only),
    ]
    if request.given:
        arguments.append(f"--chaos-config={Path(request.given).resolve()}")
    if collector.workers > 1:
        arguments += ["-n", str(collector.workers), "--dist", "load", "--maxschedchunk", "1", "--max-worker-restart", "0"]
    log = collector.directory / "pytest.log"
    with log.open("w", encoding="utf-8") as stream, _quiet_environment(), contextlib.redirect_stdout(stream):
        status = pytest.main([*(f"-p{plugin}" for plugin in PLUGINS), *arguments], plugins=[collector])
    if status == pytest.ExitCode.INTERRUPTED and collector.error is None:
        collector.interrupted = True
    if status in {pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERNAL_ERROR} and collector.error is None:
        raise EnvironmentFault(
            "pytest could not run the suites",
            remedy="the log says why; a damaged installation is mended by installing again",
            where=str(log),
            tail=tuple(log.read_text(encoding="utf-8").splitlines()[-8:]),
        )


@contextlib.contextmanager
def _quiet_environment() -> Iterator[None]:
    """The caller's own pytest settings and plugins are not ours to run under."""
    kept = {name: os.environ.pop(name, None) for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        yield
    finally:
        os.environ.pop("PYTEST_DISABLE_PLUGIN_AUTOLOAD", None)
        os.environ.update({name: value for name, value in kept.items() if value is not None})
