"""`chaos-gate matrix`: drivers as commands, and what is made of what the wire saw of them."""

import json
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from chaos.errors import UsageError
from chaos.faults.wire.rows import BY_ID, ROWS, VALID
from chaos.matrix import drivers, show, trials
from chaos.matrix.command import chosen_drivers, chosen_rows, measure
from chaos.matrix.drivers import Client, Driver
from chaos.matrix.trials import Cell, Result
from chaos.model import Connection, Rung

PLAIN = {"default": {}, "strict": {"sslmode": "verify-full", "sslrootcert": "{ca_file}", "connect_timeout": "2"}}

# A driver in a few lines, as docs/driver-matrix.md has it; its defect is that at no setting it looks at the name or the authority.
CARELESS = """
import sys, psycopg
from urllib.parse import urlsplit
print("ready 1.0", flush=True)
for line in sys.stdin:
    url = line.split()[0]
    try:
        with psycopg.connect(url.split("?")[0] + "?sslmode=require&connect_timeout=2") as session:
            session.execute("SELECT 1")
        print("ok", flush=True)
    except Exception as error:
        print("error", str(error).splitlines()[0], flush=True)
"""
# Connects to nothing, and so gives nothing away.
DEAD = 'import sys\nprint("ready 0", flush=True)\nfor line in sys.stdin: print("error cannot", flush=True)'


def driver(code, *, name="own", **more):
    return Driver(name=name, command=(sys.executable, "-c", code), modes=more.pop("modes", PLAIN), **more)


@pytest.fixture
def client():
    made = []

    def start(code):
        made.append(Client(driver(code)))
        return made[-1]

    yield start
    for one in made:
        one.stop()


class TestClient:
    def test_it_answers_line_by_line(self, client):
        one = client(
            'import sys\nprint("ready 7.1, x", flush=True)\nfor line in sys.stdin: print("ok " + line.strip(), flush=True)'
        )
        assert one.start()
        assert one.version == "7.1, x"
        assert [one.ask("a", 5), one.ask("b c", 5)] == ["ok a", "ok b c"]

    def test_one_that_hangs_is_ended_and_started_again(self, client):
        one = client(
            'import sys, time\nprint("ready", flush=True)\n'
            'for line in sys.stdin:\n    if "hang" in line: time.sleep(60)\n    print("ok", flush=True)'
        )
        assert one.ask("x", 5) == "ok"
        assert one.ask("hang", 0.3) is None
        assert one.ask("x", 5) == "ok"

    def test_one_that_dies_says_so(self, client):
        one = client('import sys\nprint("ready", flush=True)\nsys.stdin.readline()\nsys.exit(3)')
        assert one.ask("x", 5) == "error it ended with status 3"

    @pytest.mark.parametrize("code", ["import no_such_module_at_all", "print('hello')", "import sys; sys.exit('not today')"])
    def test_one_that_is_not_there_says_why(self, client, code):
        one = client(code)
        assert not one.start()
        assert one.said

    def test_a_command_that_does_not_exist(self):
        one = Client(Driver(name="x", command=("/no/such/driver",), modes=PLAIN))
        assert not one.start()
        assert "No such file" in one.said


class TestDrivers:
    def test_the_bundled_ones(self):
        names = {one.name: one for one in drivers.bundled()}
        wanted = {"psycopg 3", "psycopg2", "asyncpg", "pg8000", "SQLAlchemy, psycopg", "SQLAlchemy, asyncpg"}
        assert set(names) == wanted
        assert all(list(one.modes) == ["default", "require", "strict"] for one in names.values())
        assert all(one.modes["strict"]["sslmode"] == "verify-full" for one in names.values())

    def test_one_of_the_callers(self):
        made = drivers.given("pgx = ./client --quiet")
        assert (made.name, made.command) == ("pgx", ("./client", "--quiet"))
        assert set(made.modes) == {"default", "require", "strict"}

    @pytest.mark.parametrize("text", ["pgx", "=./client", "pgx="])
    def test_malformed(self, text):
        with pytest.raises(UsageError, match="NAME=COMMAND"):
            drivers.given(text)

    def test_choosing(self):
        assert [one.name for one in chosen_drivers(["asyncpg"], ["mine=./x"])] == ["asyncpg", "mine"]
        assert len(chosen_drivers([], ["asyncpg=./x"])) == 6
        with pytest.raises(UsageError, match="no driver 'asyncgp'"):
            chosen_drivers(["asyncgp"], [])
        assert {row.base for row in chosen_rows(["C5"])} == {"C5"}
        assert VALID not in chosen_rows([])
        assert len(chosen_rows([])) == len(ROWS) - 1
        with pytest.raises(UsageError, match="C99"):
            chosen_rows(["C99"])


def met(**more):
    return Connection(id=1, opened=1.0, behaviour="x", **more)


@pytest.mark.parametrize(
    ("row", "seen", "hung", "expected"),
    [
        ("C1", {"reached": Rung.CLIENT_HELLO}, False, "holds"),
        ("C1", {"reached": Rung.STARTUP}, False, "gives"),
        ("P1", {"reached": Rung.SSL_REQUEST, "plaintext": True}, False, "gives"),
        ("C10", {"reached": Rung.STARTUP}, False, "holds"),
        ("C10", {"reached": Rung.CLIENT_HELLO}, False, "refuses"),
        ("P8.tls", {"reached": Rung.CLIENT_HELLO}, True, "hangs"),
        ("P8.tls", {"reached": Rung.CLIENT_HELLO}, False, "holds"),
        ("A7", {"reached": Rung.STARTUP}, True, "hangs"),
        ("A2", {"reached": Rung.PASSWORD}, False, "gives"),
        ("A6", {"reached": Rung.SCRAM_PROOF}, False, "holds"),
    ],
)
def test_what_is_made_of_what_was_seen(row, seen, hung, expected):
    cell = Cell(driver="x", mode="strict", row=row, outcome="", **seen)
    assert trials.judge(BY_ID[row], cell, [met(**seen)], hung=hung)[0] == expected


def test_cancelling():
    cell = Cell(driver="x", mode="strict", row="P16", outcome="", answer="ok")
    judged = [
        trials.judge(BY_ID["P16"], cell, list(seen), hung=False)[0]
        for seen in ((), (met(cancel=True),), (met(cancel=True, tls=True),))
    ]
    assert judged == ["n/a", "gives", "holds"]


@pytest.fixture(scope="module")
def results():
    sound = next(one for one in drivers.bundled() if one.name == "psycopg 3")
    chosen = [
        driver(CARELESS, name="careless"),
        driver(DEAD, name="dead"),
        driver("import no_such_module_at_all", name="gone"),
        Driver(name="sound", command=sound.command, knows=sound.knows, modes={"strict": sound.modes["strict"]}),
    ]
    return measure(chosen, chosen_rows(["C1", "C3", "C15", "P1", "C24", "P16"]))


# Works for its control, and never again.
ONCE = CARELESS.replace('print("ok", flush=True)', 'print("ok", flush=True); sys.exit(0)')


def test_a_driver_that_gives_out_on_the_way_holds_nothing(tmp_path):
    """It cannot be started a second time: what it did not give away after that proves nothing."""
    mark = tmp_path / "mark"
    code = f"import os, sys\nif os.path.exists({str(mark)!r}): sys.exit('used up')\n" + ONCE.replace(
        "sys.exit(0)", f"open({str(mark)!r}, 'w'); sys.exit(0)"
    )
    command = Driver(name="one shot", command=(sys.executable, "-c", code), modes={"strict": {}})
    found, _ = measure([command], chosen_rows(["C1", "P1"]))
    assert {cell.outcome for cell in found[0].cells} <= {"unproven"} or found[0].missing


class TestAgainstRealParts:
    """One PostgreSQL for all: a careless driver, one that connects to nothing, one that is not there, and a sound one."""

    def outcomes(self, results, name, mode="strict"):
        return {
            cell.row: cell.outcome for one in results[0] if one.driver.name == name for cell in one.cells if cell.mode == mode
        }

    def test_a_careless_driver_is_seen(self, results):
        seen = self.outcomes(results, "careless")
        assert (seen["C1"], seen["C3"], seen["P1"], seen["C15"]) == ("gives", "gives", "holds", "holds")

    def test_a_driver_that_cannot_connect_holds_nothing(self, results):
        assert set(self.outcomes(results, "dead").values()) == {"unproven", "n/a"}

    def test_a_driver_that_is_not_there_is_listed(self, results):
        gone = next(one for one in results[0] if one.driver.name == "gone")
        assert gone.cells == ()
        assert gone.missing.startswith("not installed: ModuleNotFoundError")

    def test_a_sound_one_and_what_libpq_is_known_for(self, results):
        """C24 and P16 of the catalogue: libpq takes a missing list for none, and PQcancel ignores sslmode."""
        seen = self.outcomes(results, "sound")
        assert (seen["C1"], seen["C3"], seen["P1"], seen["C15"]) == ("holds",) * 4
        assert (seen["C24"], seen["P16"], seen["P16.safe"]) == ("gives", "gives", "holds")

    def test_it_is_shown_in_every_form(self, results):
        found, facts = results
        data = show.as_json(BY_ID, found, facts)
        assert json.loads(json.dumps(data))["schema_version"] == 1
        assert {cell["driver"] for cell in data["cells"]} == {"careless", "dead", "sound"}
        assert all("no-such" not in cell["answer"] or cell["row"] == "C24" for cell in data["cells"])
        page = show.page(BY_ID, found, facts)
        HTMLParser().feed(page)
        assert "gave away its StartupMessage" in page or "SCRAM proof" in page
        assert "gone: not installed" in page
        assert "| C24: " in show.markdown(BY_ID, found)
        assert list(show.terminal(BY_ID, found))


def test_a_value_of_the_servers_is_never_markup():
    cell = Cell(driver="d", mode="strict", row="C1", outcome="holds", answer="<script>alert(1)</script>")
    one = Result(driver=driver(DEAD, name="d", modes={"strict": {}}), version="1 & 2", cells=(cell,))
    assert "<script>" not in show.page(BY_ID, [one], {})


def test_the_command_line():
    command = [sys.executable, "-m", "chaos", "matrix", "--only", "C99"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no row 'C99'" in done.stderr


def test_the_document_shows_every_row():
    from pathlib import Path

    text = (Path(__file__).resolve().parents[2] / "docs" / "driver-matrix.md").read_text(encoding="utf-8")
    missing = [row.id for row in chosen_rows([]) if f"| {row.id}: " not in text]
    assert not missing
