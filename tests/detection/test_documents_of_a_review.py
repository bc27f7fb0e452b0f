"""[documents] in a real run; and the commands that the texts hold, carried out as they stand."""

import json
import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import chaos.documents
from chaos.documents import wanted, write_texts
from chaos.rollout.rollback import State
from tests.detection.tiny_run import Run

TEXTS = Path(chaos.documents.__file__).parent / "texts"
LINE = re.compile(r"^\$ (.+)$", re.MULTILINE)


def declared(place, *, change=str):
    """The tiny target's chaos.toml with nine documents, filled in; the runbook changed."""
    from tests.detection.conftest import TARGETS, with_environment

    made = with_environment(TARGETS / "tiny" / "chaos.toml", place, {})
    made.write_text(made.read_text(encoding="utf-8") + '[documents]\ndirectory = "documents"\n', encoding="utf-8")
    for one in write_texts(place / "documents", target="tiny", today=datetime.now(UTC).date(), force=False):
        text = re.sub(r"\[\[[^\]\n]*\]\]", "Ada Lovelace", one.read_text(encoding="utf-8"))
        one.write_text(change(text) if one.name == "runbook.md" else text, encoding="utf-8")
    return made


def test_a_document_that_is_too_old_is_red(tmp_path):
    old = declared(tmp_path, change=lambda text: re.sub(r"date: .*", "date: 2020-02-29", text))
    run = Run(tmp_path, old, only=("documents",))
    assert run.wait() == 1, run.told()
    assert [gate["id"] for gate in run.evidence["gates"] if gate["verdict"] == "fail"] == ["rep.documents"]
    assert [check["id"] for check in run.evidence["checks"] if check["outcome"] == "fail"] == ["runbook.documents"]


def test_documents_that_are_whole_prove_the_gate(tmp_path):
    run = Run(tmp_path, declared(tmp_path), only=("documents",))
    assert run.wait() == 0, run.told()
    assert {gate["verdict"] for gate in run.evidence["gates"] if gate["id"] == "rep.documents"} == {"pass"}


def test_a_target_that_declares_none_has_them_not_proven(tmp_path):
    run = Run(tmp_path, only=("documents",))
    assert run.wait() == 3, run.told()
    (gate,) = [one for one in run.evidence["gates"] if one["id"] == "rep.documents"]
    assert (gate["verdict"], "init --documents" in gate["reason"]) == ("inconclusive", True)


class Well(BaseHTTPRequestHandler):
    """A release that serves again."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A directory in which what the texts speak of is there: evidence/latest of a run, and the state of a roll-out."""
    place = tmp_path_factory.mktemp("work")
    done = call(["chaos-gate", "run", "--only", "network.refused.pooled", "--seed", "1"], place)
    assert done.returncode == 0, done.stderr
    server = ThreadingHTTPServer(("127.0.0.1", 0), Well)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    State(url=url, path="/", headers={}, good="baseline", command=(sys.executable, "-c", "")).write(place / "rollout.json")
    yield place
    server.shutdown()
    server.server_close()


def call(words, place):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {name: value for name, value in os.environ.items() if not name.startswith("CHAOS_R")} | {"PATH": path}
    words = [sys.executable, "-m", "chaos", *words[1:]]
    return subprocess.run(words, cwd=place, env=env, capture_output=True, text=True, timeout=120, check=False)


def commands():
    found = [(one.stem, line) for one in sorted(TEXTS.glob("*.md")) for line in LINE.findall(one.read_text(encoding="utf-8"))]
    return list({line: (name, line) for name, line in found}.values())


def test_there_is_a_text_for_each_document_and_commands_in_them():
    assert {one.stem for one in TEXTS.glob("*.md")} == {one.id for one in wanted()}
    assert len(commands()) >= 7


@pytest.mark.parametrize(("name", "line"), commands(), ids=[line for _, line in commands()])
def test_each_command_in_the_texts_works(workplace, name, line):
    words = line.split()
    assert words[0] == "chaos-gate", f"{name}: {line}"
    done = call(words, workplace)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((workplace / "evidence" / "latest" / "evidence.json").read_text(encoding="utf-8"))["schema_version"] == 1
