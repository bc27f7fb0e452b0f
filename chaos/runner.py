"""`chaos-gate run`: pytest on the packaged suites, in this process, with the collector as a plugin."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chaos import plan
from chaos.cases import due, known_names, select
from chaos.collector import Collector, Request, sweep_stale
from chaos.defect import Defect
from chaos.errors import ChaosError, CleanupFailed, EnvironmentFault, EvidenceUnwritable, PartMissing
from chaos.evidence.redact import redact
from chaos.gates import load as load_gates
from chaos.gates import named
from chaos.model import ENVIRONMENT
from chaos.session import scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos.cases import Case
    from chaos.evidence.record import Run
    from chaos.terminal import Screen

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
PLUGINS = ("xdist", "xdist.looponfail", "chaos.pytest_plugin")


def suites() -> list[Path]:
    """tests/resilience and tests/security: from the wheel, or from the checkout that this package is run from."""
    packaged = Path(__file__).parent / "suites"
    root = packaged if packaged.is_dir() else Path(__file__).parent.parent / "tests"
    return [root / "resilience", root / "security"]


def execute(request: Request, *, workers: int | None, as_json: bool) -> int:
    """Run, conclude, print; returns the exit code."""
    from chaos.terminal import Screen  # noqa: PLC0415

    check_names(request.only)
    screen = Screen(sys.stderr if as_json else sys.stdout)
    collector = prepared(request, screen)
    collector.workers = _workers(collector, workers)

    def work() -> None:
        planned = plan.write(collector.directory, _selected(request), seed=collector.seed, profile=request.profile)
        collector.fix(planned)
        header(collector, screen)
        get_parts(collector, screen)
        _pytest(collector)

    return conduct(collector, screen, work, as_json=as_json)


def prepared(request: Request, screen: Screen) -> Collector:
    """The collector of a run, its evidence directory made. Raises UsageError, EvidenceUnwritable."""
    sweep_stale(scratch())
    return Collector.prepare(request, screen=screen)


def conduct(collector: Collector, screen: Screen, work: Callable[[], None], *, as_json: bool) -> int:
    """Do the work of a run, conclude, print; returns the exit code. What nobody expected ends in a Defect."""
    try:
        return _conduct(collector, screen, work, as_json=as_json)
    except (ChaosError, Defect):
        raise
    except Exception as error:
        raise Defect.of(error, collector.directory) from error


def _conduct(collector: Collector, screen: Screen, work: Callable[[], None], *, as_json: bool) -> int:
    """Between the evidence directory's making and the last word. Whatever ends the run early is told in its evidence as well."""
    from chaos.terminal import run_json  # noqa: PLC0415

    run, code = None, ENVIRONMENT
    try:
        try:
            collector.own()
            work()
        except KeyboardInterrupt:
            collector.interrupted = True
        except ChaosError as error:
            collector.error = collector.error or error
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            collector.error = collector.error or _unwritable(error, collector.directory)
        try:
            run, code = collector.conclude()
        except ChaosError as error:  # the disk is full: what ended the run before that is what has to be told
            collector.error = collector.error or error
            code = collector.error.exit_code
    finally:
        code = _release(collector, code)
        screen.close()
    _last_words(collector, run, screen)
    if as_json and run is not None:
        sys.stdout.write(run_json(run) + "\n")
    return code


def _last_words(collector: Collector, run: Run | None, screen: Screen) -> None:
    if run is not None and (run.findings or collector.error is None):  # else the error is all there is to say
        screen.summary(run, collector.directory)
    elif collector.broke:  # but what became of what was broken is said in any case
        screen.phase("clean-up", collector.cleanup)
    if collector.error is not None:
        sys.stderr.write(redact(f"chaos-gate: {collector.error.render()}\n", collector.secrets))
    elif collector.interrupted:
        far = f" after {len(collector.done)} of {len(collector.expected)} checks" if collector.expected else ""
        sys.stderr.write(f"chaos-gate: interrupted{far}; ")
        sys.stderr.write("everything was healed and stopped, and the evidence so far is kept\n")


def _unwritable(error: OSError, directory: Path) -> EvidenceUnwritable:
    return EvidenceUnwritable(
        f"cannot be written: {error.strerror}",
        remedy="make room, or name another place with --evidence DIR",
        where=str(error.filename or directory),
    )


def _release(collector: Collector, code: int) -> int:
    """The exit code after the clean-up: one that failed is an environment error, whatever the verdict."""
    try:
        try:
            if collector.backend == "docker":
                _release_engine(collector)
        finally:
            collector.release()
    except (CleanupFailed, PartMissing) as error:
        if collector.error is None:
            collector.error = error
            return error.exit_code
    return code


def _release_engine(collector: Collector) -> None:
    from chaos.environments import docker  # noqa: PLC0415  (late: not every run has this environment)

    try:
        docker.release(collector.run_id)
    except PartMissing:  # an engine that does not answer has ended the run already, and the next one sweeps
        if collector.error is None:
            raise


def check_names(only: tuple[str, ...]) -> None:
    """Each --only has to name something; else a UsageError with 'did you mean'."""
    for name in only:
        if not select((name,)):
            named(name, known_names() | set(load_gates()))


def _selected(request: Request) -> list[Case]:
    """What the request names, less what its profile leaves out."""
    return [case for case in select(request.only) if due(case, request.only, request.profile)]


def _workers(collector: Collector, given: int | None) -> int:
    cases = [case for case in _selected(collector.request) if not case.absent(collector.config)]
    if collector.config.target.url is not None:
        return 1  # one target and one proxy, which workers cannot have each for itself
    asked = given or collector.config.run.workers or min(4, 2 * (os.cpu_count() or 1))
    return max(1, min(asked, len(cases)))


def header(collector: Collector, screen: Screen) -> None:
    """The run's first line."""
    screen.header(
        target=collector.called or collector.config.target.name,
        profile=collector.request.profile,
        seed=collector.seed,
        workers=collector.workers,
    )


def get_parts(collector: Collector, screen: Screen) -> None:
    """What may have to be built or copied once a machine is, before the workers ask for it all at once."""

    def say(text: str) -> None:
        screen.phase("set up", text, None)

    if any(case.family == "expiry" for case in _selected(collector.request)):
        from chaos.environments.local import prometheus  # noqa: PLC0415  (late: not every run evaluates rules)

        with contextlib.suppress(PartMissing):  # its check says so
            prometheus.ensure(say)
    if collector.config.target.url is not None:
        return
    if _compares(collector):
        from chaos.environments.local import oasdiff  # noqa: PLC0415  (the same)

        with contextlib.suppress(PartMissing):
            oasdiff.ensure(say)
    if collector.backend == "docker":
        from chaos.environments import docker  # noqa: PLC0415  (late: not every run has this environment)

        docker.provide(collector.config.environment, collector.config.target.image, say=say)
    else:
        from chaos.environments import local  # noqa: PLC0415  (the same)

        local.provide(collector.config.environment, say=say)


def _compares(collector: Collector) -> bool:
    """Whether there are two descriptions to be compared."""
    target = collector.config.target
    chosen = any(case.family == "contract" for case in _selected(collector.request))
    return chosen and target.openapi is not None and (target.candidate is not None or target.contract is not None)


def _pytest(collector: Collector) -> None:
    """Pytest's own words go to pytest.log in the evidence: people read the screen, and machines evidence.json."""
    request = collector.request
    arguments = [
        *(str(path) for path in suites()),
        f"--rootdir={suites()[0].parent}",
        f"--basetemp={collector.run_dir / 'pytest'}",  # workers make one in any case; it goes with the rest
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
    with _Log(log, collector.secrets) as stream, _quiet_environment(), contextlib.redirect_stdout(stream):
        status = pytest.main([*(f"-p{plugin}" for plugin in PLUGINS), *arguments], plugins=[collector])
    if status == pytest.ExitCode.INTERRUPTED and collector.error is None:
        collector.interrupted = True
    if status == pytest.ExitCode.INTERNAL_ERROR and collector.error is None:
        said = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("INTERNALERROR>")]
        raise Defect(said[-1].removeprefix("INTERNALERROR>").strip() if said else "pytest's own error", log)
    if status == pytest.ExitCode.USAGE_ERROR and collector.error is None:
        raise EnvironmentFault(
            "pytest could not run the suites",
            remedy="the log says why; a damaged installation is mended by installing again",
            where=str(log),
            tail=tuple(log.read_text(encoding="utf-8").splitlines()[-8:]),
        )


class _Log(io.TextIOBase):
    """A text file that neither a full disk nor a late word turns into a defect: pytest's words are for us, and worth no run."""

    def __init__(self, path: Path, secrets: tuple[str, ...]) -> None:
        self._secrets = secrets
        self._stream = path.open("w", encoding="utf-8", errors="replace")

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(redact(text, self._secrets))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.close()
        super().close()


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
