"""What people get wrong, and what breaks around a run: each time one clear error, the right exit code, and nothing left."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.detection.tiny_run import TINY, Run, one_error, tiny, until

# -- usage: before anything is started ------------------------------------------------------------------------------------------

WRONG = {
    "an unknown key": ("startup_timeout", "startup_timeot", ("chaos.toml:", "startup_timeot", "startup_timeout")),
    "a wrong type": ('"startup_timeout" = 10', '"startup_timeout" = "soon"', ("chaos.toml:", "startup_timeout")),
    "no TOML": ("[target]", "[target", ("chaos.toml:1",)),
    "an unknown placeholder": ("{database_url}", "{databse_url}", ("chaos.toml:", "database_url")),
    "no such program": ('"python"', '"pythom"', ("chaos.toml:", "pythom")),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_mistake_in_chaos_toml(tmp_path, what):
    old, new, words = WRONG[what]
    run = Run(tmp_path, tiny(tmp_path, old=old, new=new))
    one_error(run, 2, *words)
    assert run.left() == []


USAGE = {
    ("--only", "network.refusd"): "network.refused",
    ("--only", "sec.verify_ful"): "sec.verify_full",
    ("-c", "no-such.toml"): "no-such.toml",
    ("-c", "."): "chaos.toml",
    ("--profile", "quik"): "'quick'",
    ("--sead", "1"): "--seed",
    ("-n", "0"): "1<=x<=64",
}


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_a_mistake_on_the_command_line(tmp_path, words):
    run = Run(tmp_path, options=words)
    assert run.wait() == 2, run.told()
    assert USAGE[words] in run.stderr
    assert "Traceback" not in run.told()
    assert run.stdout == ""
    assert run.directory is None
    assert run.left() == []


# -- the target -----------------------------------------------------------------------------------------------------------------

SICK = {
    "never-ready": ("not ready after 2 s", "503", "tiny is up"),
    "port-taken": ("port", "is taken", "Address already in use"),
    "dies-after-0": ("before it was ready", "exit status 7", "out of paper"),
}


@pytest.mark.parametrize("mode", SICK)
def test_a_target_that_does_not_start(tmp_path, mode):
    run = Run(tmp_path, tiny(tmp_path, mode, old='"startup_timeout" = 10', new='"startup_timeout" = 2'), options=("--json",))
    one_error(run, 4, "chaos.toml:", *SICK[mode])
    told = json.loads(run.stdout)  # and nothing but JSON
    assert told["verdict"] == "INCONCLUSIVE"
    assert SICK[mode][0] in run.recorded_error
    assert run.left() == []


def test_a_target_that_is_sick_with_nothing_broken(tmp_path):
    run = Run(tmp_path, tiny(tmp_path, old="/one", new="/two"))
    one_error(run, 4, "GET /two", "404", "tiny")
    assert run.left() == []


def test_a_target_that_ends_while_nothing_is_broken(tmp_path):
    """`steady` breaks nothing: whatever ends the target there, no fault of ours did."""
    run = Run(tmp_path, tiny(tmp_path, "dies-after-5"), only=("steady",))
    one_error(run, 4, "tiny", "exit status 7", "out of paper")
    assert "exit status 7" in run.recorded_error
    assert run.left() == []


# -- somebody kills a part --------------------------------------------------------------------------------------------------------


def postmaster(run):
    """The server process of PostgreSQL, not one of its children (whose command lines have a colon)."""
    process = run.wait_for("bin/postgres", "-D") if run.part("bin/postgres", "-D") else run.wait_for("postgres", "-D")
    while process.parent() is not None and "postgres" in process.parent().name():
        process = process.parent()
    return process


VICTIMS = {
    "the target": (lambda run: run.wait_for("service.py"), ("tiny", "SIGKILL", "tiny is up")),
    "PostgreSQL": (postmaster, ("PostgreSQL", "died")),
    "Toxiproxy": (lambda run: run.wait_for("toxiproxy-server", "-port"), ("Toxiproxy", "died")),
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_from_outside_in_mid_fault(tmp_path, victim):
    find, words = VICTIMS[victim]
    run = Run(tmp_path, only=("network.refused.pooled", "network.refused.new"))
    run.wait_for_fault()
    find(run).send_signal(signal.SIGKILL)
    one_error(run, 4, *words)
    assert words[0] in run.recorded_error
    assert run.left() == []


# -- the machine ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["a file", "a file/below", "/proc/x"])
def test_evidence_that_cannot_be_written(tmp_path, place):
    (tmp_path / "a file").touch()
    run = Run(tmp_path, options=("--evidence", place))
    one_error(run, 4, place, "--evidence DIR")
    assert run.stdout == ""
    assert run.left() == []


@pytest.mark.parametrize("room", ["112k", "320k"], ids=["while it measures", "while it writes the report"])
def test_a_full_disk(tmp_path, room):
    """A tmpfs of a few pages, in a mount namespace of the run's own."""
    small = tmp_path / "evidence"
    small.mkdir()
    private = ["unshare", "-m", "sh", "-c"]
    mount = f"mount -t tmpfs -o size={room} tmpfs {small}"
    try:
        can = subprocess.run([*private, mount], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        can = False
    if not can:
        pytest.skip("needs the right to mount: a small file system is the only honest full disk")
    # What there is in the end is looked at from inside, since nobody else sees that mount.
    look = f'{mount}; "$@"; code=$?; ls -s {small}/* > seen; exit $code'
    run = Run(tmp_path, before=(*private, look, "sh"), only=("steady",))
    one_error(run, 4, str(small), "free space on that disk")
    assert "evidence.sqlite" in (tmp_path / "seen").read_text() or "segments" in (tmp_path / "seen").read_text()
    assert run.left() == []


def test_no_toxiproxy_to_be_had(tmp_path):
    """An empty cache, no Go, no package index: said at once, and what could be done about it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python").symlink_to(sys.executable)
    nowhere = {
        "CHAOS_CACHE": str(tmp_path / "cache"),
        "PATH": f"{programs}:/usr/bin:/bin",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_NO_INDEX": "",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull,
        "GOPROXY": "off",
    }
    (tmp_path / "cache").mkdir()
    if any((Path(place) / name).exists() for place in ("/usr/bin", "/bin") for name in ("go", "toxiproxy-server")):
        pytest.skip("this machine has one among its own programs")
    run = Run(tmp_path, env=nowhere)
    one_error(run, 4, "Toxiproxy", "toxiproxy-server 2.12.0 on PATH")
    assert run.left() == []


# -- ourselves --------------------------------------------------------------------------------------------------------------------


def test_a_defect_of_ours_is_one_line_and_a_file(tmp_path):
    """A module of ours that fails when it is imported, in the middle of the run: nobody is shown a traceback."""
    broken = tmp_path / "broken"
    broken.mkdir()
    code = "import chaos.collector\ndef fail(*_, **__):\n    raise ZeroDivisionError('planted')\nchaos.collector.judge = fail\n"
    (broken / "sitecustomize.py").write_text(code, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(broken), os.environ.get("PYTHONPATH", ""), str(Path.cwd())]))
    run = Run(tmp_path, env={"PYTHONPATH": path})
    assert run.wait() == 4, run.told()
    assert "Traceback" not in run.told()
    assert "chaos-gate failed: ZeroDivisionError: planted" in run.stderr
    assert "ZeroDivisionError: planted" in (run.directory / "traceback.txt").read_text(encoding="utf-8")
    assert run.left() == []


def test_the_run_after_all_that_works(tmp_path):
    run = Run(tmp_path, TINY)
    assert run.wait() == 0, run.told()
    assert until(lambda: run.left() == [])
