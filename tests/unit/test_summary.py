"""Daily summaries, KPIs, what is posted, and what a pipeline shows."""

import json
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner

from chaos.checks.longrun import judge_run
from chaos.cli import cli
from chaos.errors import PartFailed, UsageError
from chaos.evidence import bundle, kpis, summary
from chaos.evidence.record import Run
from chaos.evidence.store import merge
from chaos.export import webhook
from chaos.gates import judge
from chaos.model import Finding, Outcome, Verdict
from tests.unit.long_run import GATES, HOUR, LIMITS, START, Service, write

SECRET = "s3cret-of-the-webhook"


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    """26 hours of a service with one bad hour and a gap."""
    directory = tmp_path_factory.mktemp("soak")
    write(directory, Service(hours=26, failing=lambda n: 14 if n // 60 == 12 else 0, there=lambda n: n != 300))
    store = merge(directory)
    found = judge_run(store.histories(), LIMITS)
    found += (
        Finding(check="network.refused", gate="res.network", outcome=Outcome.PASS, detail="ok", took_effect=True, n=4, bad=1),
    )
    run = Run(
        version="1",
        target="orders | <b>shop</b>",
        profile="smoke",
        seed=7,
        verdict=Verdict.NO_GO,
        started=START,
        finished=START + 26 * HOUR,
        gates=judge(found, GATES),
        findings=found,
    )
    store.save(run)
    summary.write(directory, replace(run, recordings=store.recordings), limits=LIMITS, secrets=(SECRET,))
    return directory


def values(directory):
    return {one["id"]: one for one in json.loads((directory / "kpis.json").read_text())["kpis"]}


def test_a_recheck_of_a_soak_finds_the_same(evidence):
    done = CliRunner().invoke(cli, ["recheck", str(evidence)])
    assert "every gate as recorded" in done.output


def test_every_kpi_of_the_requirement_is_there(evidence):
    found = values(evidence)
    assert list(found) == [
        *("unknown_host_400s", "tls_failure_rate", "certificate_days", "availability", "latency_p95", "latency_p99", "rate_5xx"),
        *("retry_success_rate", "seo_crawl_success", "provider_api_success", "landing_p95_shift"),
    ]
    assert found["unknown_host_400s"]["value"] == pytest.approx(36 * 60 * 24)
    assert found["availability"]["value"] == pytest.approx(100 * (1 - 840 / (155 * 5760)))
    assert found["latency_p95"]["value"] == pytest.approx(13, abs=1)
    assert found["retry_success_rate"]["value"] == 75.0
    assert found["certificate_days"]["said"] == "89 days"
    assert found["landing_p95_shift"]["value"] == pytest.approx(1.0, abs=0.05)


def test_a_kpi_without_data_says_so():
    run = Run(version="1", target="t", profile="quick", seed=1, verdict=Verdict.CLEAR, started=START, finished=START)
    found = kpis.kpis([], run)
    assert {one.value for one in found} == {None}
    assert all(one.why for one in found)
    assert {one.said for one in found} == {"no data"}


def test_one_summary_a_utc_day(evidence):
    names = sorted(path.name for path in (evidence / "summaries").iterdir())
    assert names == [f"{day}.{kind}" for day in ("2026-11-24", "2026-11-25") for kind in ("html", "md")]
    first, second = ((evidence / "summaries" / f"{day}.md").read_text() for day in ("2026-11-24", "2026-11-25"))
    assert "hour 5: grey, only 83.3% of its seconds" in first
    assert "hour 12: red, rel.availability" in first
    assert "2026-11-25 (UTC): 2 green" in second
    days = json.loads((evidence / "kpis.json").read_text())["days"]
    assert {one["id"]: one for one in days["2026-11-25"]}["availability"]["value"] == 100.0


def test_what_to_do_is_said_for_each_failing_gate(evidence):
    text = (evidence / "summary.md").read_text()
    assert "`rep.go`: See which hours were not green" in text
    assert set(GATES) <= set(summary.remedies())


def test_the_page_needs_nothing_else_and_trusts_no_text(evidence):
    page = (evidence / "summary.html").read_text()
    assert not re.search(r"<script|<link|src=|url\(", page)
    assert "<b>shop</b>" not in page
    assert "orders | &lt;b&gt;shop" in page
    assert "orders \\| \\<b\\>shop" in (evidence / "summary.md").read_text()


def test_a_soak_has_its_summaries_in_the_bundle_and_a_short_run_has_none(tmp_path):
    write(tmp_path, Service(hours=0.5))
    store = merge(tmp_path)
    found = judge_run(store.histories(), LIMITS)
    run = Run(
        version="1", target="t", profile="smoke", seed=1, verdict=Verdict.CLEAR, started=START, finished=START, findings=found
    )
    bundle.write(tmp_path, run, store, limits=LIMITS)
    assert (tmp_path / "kpis.json").exists()
    for path in ("kpis.json", "summary.md", "summary.html"):
        (tmp_path / path).unlink()
    bundle.write(tmp_path, replace(run, findings=()), store)
    assert not (tmp_path / "kpis.json").exists()


@pytest.fixture
def receiver():
    """A real HTTP server that answers as it is told; (URL, answers to give, bodies that it got)."""
    answers, bodies = [], []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(answers.pop(0) if answers else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hooks/{SECRET}", answers, bodies
        server.shutdown()


def test_a_webhook_that_fails_twice_gets_it_at_the_third(receiver):
    url, answers, bodies = receiver
    answers += [503, 429]
    pauses = []
    assert webhook.post(url, {"text": "x"}, pause=pauses.append) == 3
    assert len(bodies) == 3
    assert len(pauses) == 2
    assert max(pauses) <= webhook.CAP


def test_a_webhook_that_never_takes_it_is_an_error_without_its_url(receiver):
    url, answers, bodies = receiver
    answers += [500] * 9
    with pytest.raises(PartFailed) as caught:
        webhook.post(url, {}, pause=lambda _: None)
    assert len(bodies) == webhook.ATTEMPTS
    assert SECRET not in str(caught.value)
    answers[:] = [404]
    with pytest.raises(PartFailed, match="404, the last of 1 attempt;"):
        webhook.post(url, {}, pause=lambda _: None)
    with pytest.raises(PartFailed, match="no answer") as caught:
        webhook.post(f"http://127.0.0.1:1/{SECRET}", {}, pause=lambda _: None)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["", "ftp://x/", f"http://[{SECRET}", "http://", f"{SECRET}"])
def test_what_is_no_url_is_said_without_it(url):
    with pytest.raises(UsageError) as caught:
        webhook.checked(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("shape", ["slack", "plain"])
def test_the_command_posts(evidence, receiver, shape):
    url, answers, bodies = receiver
    answers += [502]
    done = CliRunner().invoke(cli, ["summary", str(evidence), "--webhook", url, "--shape", shape])
    assert done.exit_code == 0, done.output
    assert "at attempt 2" in done.output
    assert SECRET not in done.output
    body = bodies[-1]
    assert body["text"].startswith("NO-GO: orders")
    if shape == "slack":
        assert {one["type"] for one in body["blocks"]} == {"header", "section"}
        assert all(len(one["text"]["text"]) <= 3000 for one in body["blocks"])
        assert "<b>" not in json.dumps(body["blocks"][1:])
    else:
        assert [one["gate"] for one in body["failed"]] == [one["gate"] for one in body["failed"] if one["remedy"]]
        assert "rep.go" in {one["gate"] for one in body["failed"]}


def test_a_failing_webhook_leaves_the_evidence(evidence):
    (evidence / "summary.md").unlink()
    done = CliRunner().invoke(cli, ["summary", str(evidence), "--webhook", f"http://127.0.0.1:1/{SECRET}"])
    assert done.exit_code != 0
    assert SECRET not in done.output + str(done.exception)
    assert (evidence / "summary.md").exists()


def test_github_gets_a_job_summary_and_one_annotation_a_failing_gate(evidence, tmp_path, monkeypatch):
    assert CliRunner().invoke(cli, ["summary", str(evidence), "--github"]).exit_code != 0
    target = tmp_path / "step.md"
    target.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(target))
    done = CliRunner().invoke(cli, ["summary", str(evidence), "--github"])
    lines = [line for line in done.output.splitlines() if line.startswith("::error")]
    failed = [one.id for one in merge(evidence).run().gates if one.outcome is Outcome.FAIL]
    assert [re.match(r"::error title=([^:]+)::", line)[1] for line in lines] == failed
    assert "above 0.100%25 (level" in lines[0]
    assert target.read_text().startswith("before\n# orders")


def test_a_percent_sign_and_a_line_feed_do_not_end_an_annotation():
    whole = summary.Summary(
        run=None,
        tone="fail",
        sentence="",
        streak="",
        gates=(summary.Held("rel.p95", "t", "FAIL", "fail", "5 %\n::set-output name=x::y", "mend it"),),
        odd=(),
        kpis=(),
        days=(),
    )
    assert webhook.workflow_commands(whole) == ["::error title=rel.p95::5 %25%0A::set-output name=x::y. mend it"]
