"""The documents of the review: what is asked of each, texts to start from, and what a check makes of them."""

import json
import re
from datetime import date

import pytest
from click.testing import CliRunner

from chaos.checks import Limits
from chaos.checks.documents import check
from chaos.commands.init import command
from chaos.documents import examine, wanted, write_texts
from chaos.errors import UsageError
from chaos.model import History, Outcome

TODAY = date(2026, 11, 27)


@pytest.fixture
def texts(tmp_path):
    """All nine, filled in."""
    for place in write_texts(tmp_path, target="orders", today=TODAY, force=False):
        place.write_text(re.sub(r"\[\[[^\]\n]*\]\]", "Ada Lovelace", place.read_text(encoding="utf-8")), encoding="utf-8")
    return tmp_path


def judged(directory, *, today=TODAY, oldest=180):
    seen = json.dumps([one.plain() for one in examine(directory)])
    facts = {"documents": seen, "today": today.isoformat(), "oldest": str(oldest), "gate": "rep.documents", "family": "documents"}
    history = History(experiment="documents", started=0.0, facts=facts)
    return {one.check: one for one in check(history, Limits(recovery=10, fail_fast=5))}


def test_requirements_are_all_there():
    """rep.documents of the requirements, one by one."""
    asked = """changelog runbook rollback-plan certificate-rotation-sop status-page-runbook soc2-mapping dpa-tls-posture dpia
    ferpa-coppa-statement""".split()
    assert [one.id for one in wanted()] == asked


def test_the_texts_pass_when_they_are_filled_in(texts):
    found = judged(texts)
    assert len(found) == 9
    assert {one.outcome for one in found.values()} == {Outcome.PASS}, [one.detail for one in found.values()]


def test_the_texts_as_they_come_do_not_pass(tmp_path):
    write_texts(tmp_path, target="orders", today=TODAY, force=False)
    found = judged(tmp_path)
    assert {one.outcome for one in found.values()} == {Outcome.FAIL}
    assert "blanks are left to fill in" in found["runbook.documents"].detail
    assert found["runbook.documents"].examples[0].startswith("runbook.md:2: [[")


def without(text):
    return lambda found: found.replace(text, "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("owner: Ada Lovelace\n"), "has no owner"),
        (without("date: 2026-11-27\n"), "its date is none: empty"),
        (lambda text: text.replace("2026-11-27", "27.11.2026"), "its date is none: 27.11.2026"),
        (lambda text: text.replace("2026-11-27", "2026-05-01"), "was reviewed 210 days ago (at most 180)"),
        (lambda text: text.replace("2026-11-27", "2027-01-01"), "which is to come"),
        (lambda text: text.replace("## Escalation", "Escalation"), "has no heading with 'escalation'"),
        (lambda text: text + "\n[[which]]\n", "1 blanks are left"),
        (without("---\n"), "has no head"),
        (lambda _: "", "has no head"),
    ],
)
def test_what_is_wrong_with_one_is_said(texts, change, said):
    place = texts / "runbook.md"
    place.write_text(change(place.read_text(encoding="utf-8")), encoding="utf-8")
    found = judged(texts)
    assert [name for name, one in found.items() if one.outcome is Outcome.FAIL] == ["runbook.documents"]
    assert said in found["runbook.documents"].detail


def test_one_that_is_not_there_or_cannot_be_read(texts):
    (texts / "dpia.md").unlink()
    (texts / "changelog.md").write_bytes(b"\xff\xfe")
    found = judged(texts)
    assert "is not there" in found["dpia.documents"].detail
    assert "not UTF-8" in found["changelog.documents"].detail


def test_times_of_the_status_page_are_numbers(texts):
    place = texts / "status-page-runbook.md"
    place.write_text(place.read_text(encoding="utf-8").replace("update_minutes: 30", "update_minutes: soon"), encoding="utf-8")
    assert "update_minutes is no number" in judged(texts)["status-page-runbook.documents"].detail


def test_a_windows_file_is_read_as_well(texts):
    place = texts / "dpia.md"
    place.write_bytes(b"\xef\xbb\xbf" + place.read_bytes().replace(b"\n", b"\r\n"))
    assert judged(texts)["dpia.documents"].outcome is Outcome.PASS


def test_init_keeps_what_is_there(tmp_path):
    write_texts(tmp_path, target="orders", today=TODAY, force=False)
    (tmp_path / "runbook.md").write_text("ours", encoding="utf-8")
    with pytest.raises(UsageError, match="some are there already"):
        write_texts(tmp_path, target="orders", today=TODAY, force=False)
    assert (tmp_path / "runbook.md").read_text(encoding="utf-8") == "ours"


def test_init_declares_them_in_chaos_toml(tmp_path):
    config = tmp_path / "chaos.toml"
    config.write_text('[target]\nname = "orders"\nurl = "http://127.0.0.1:1"\n[[target.read]]\npath = "/"', encoding="utf-8")
    done = CliRunner().invoke(command, ["--documents", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert config.read_text(encoding="utf-8").endswith('path = "/"\n\n[documents]\ndirectory = "documents"\n')
    assert "# orders: runbook" in (tmp_path / "documents" / "runbook.md").read_text(encoding="utf-8")
