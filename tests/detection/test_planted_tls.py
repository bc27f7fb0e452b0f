"""One thing wrong about TLS, in two stacks: each row that is about it goes red, no other does, and only the row's own gate."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.detection import planted_asyncpg, planted_tls
from tests.detection.conftest import REFERENCE, TARGETS, run_suite, with_environment

HERE = Path(__file__).parent
VERIFY_FULL = "sec.verify_full"


@dataclass(frozen=True)
class Planted:
    """What has to be red, what beside it has to stay green, and what [policy] has to say for it."""

    red: str
    green: str
    gate: str = VERIFY_FULL
    policy: dict = field(default_factory=dict)
    slow: bool = False


REFERENCE_DEFECTS = {
    "name_not_checked": Planted("C3.reconnect C3.start C4.reconnect C9.reconnect", "C1.reconnect C16.reconnect P1.reconnect"),
    "nothing_verified": Planted("C1.reconnect C16.start C17.reconnect", "P1.reconnect", slow=True),
    "plaintext_where_there_is_no_tls": Planted("P1.reconnect A8.start C16.reconnect", "P8.answer.reconnect"),
    "any_authentication_will_do": Planted(
        "A2.reconnect A3.reconnect", "A4.reconnect A6.reconnect", policy={"A2": "reject", "A3": "reject"}, slow=True
    ),
    "plaintext_after_a_bad_certificate": Planted("C1.reconnect C16.start", "P1.reconnect P2.reconnect P9.reconnect"),
    "plaintext_after_an_n": Planted("P1.reconnect P1.start A8.reconnect", "P2.reconnect C16.reconnect"),
    "plaintext_after_an_error_packet": Planted("P2.reconnect P2.start", "P1.reconnect C16.reconnect"),
    "plaintext_after_a_broken_handshake": Planted("P9.reconnect P9.http.reconnect", "P1.reconnect C16.reconnect", slow=True),
    "unverified_at_the_second_failure": Planted("C16.reconnect C16.start", "P1.reconnect", slow=True),
    "verified_at_start_only": Planted("C16.reconnect", "C16.start P1.reconnect"),
    "waits_in_a_stalled_handshake": Planted("P8.tls.reconnect", "C16.reconnect", gate="res.network"),
    "worker_unverified": Planted("C16.reconnect C3.start", "P1.reconnect"),
    "migration_unverified": Planted("C16.start", "C16.reconnect P1.start"),
    "second_pool_unverified": Planted("C16.reconnect C1.start", "P1.reconnect"),
    "cancels_in_plaintext": Planted("P16.reconnect", "C16.reconnect", policy={"P16": "reject"}),
    "expiry_ignored": Planted("C1.reconnect C1.start C2.reconnect", "C3.reconnect C16.reconnect C17.reconnect"),
    "any_authority_trusted": Planted("C16.reconnect C17.reconnect C18.start", "C3.reconnect C7.reconnect P1.reconnect"),
    "wildcards_match_anything": Planted("C4.reconnect C5.partial.reconnect", "C3.reconnect C16.reconnect C5.reconnect"),
    "common_name_although_there_are_names": Planted("C7.reconnect", "C3.reconnect C9.reconnect C16.reconnect"),
    "names_end_at_a_nul": Planted("C13.reconnect", "C3.reconnect C13.cn.reconnect", slow=True),
    "self_signed_accepted": Planted("C17.reconnect C17.start", "C16.reconnect C3.reconnect"),
}
ASYNCPG_DEFECTS = {
    "nothing_verified": Planted("C16.reconnect C3.start", "P1.reconnect"),
    "name_not_checked": Planted("C3.reconnect C7.reconnect", "C16.reconnect P2.reconnect", slow=True),
    "expiry_ignored": Planted("C1.reconnect C2.reconnect", "C16.reconnect", slow=True),
    "old_versions_allowed": Planted("P10.reconnect", "C16.reconnect C3.reconnect"),
    "anonymous_ciphers_allowed": Planted("P12.reconnect", "C16.reconnect C3.reconnect"),
}
EVERY = os.environ.get("CHAOS_DETECTION") == "all"


def chosen(defects):
    return [name for name, one in defects.items() if EVERY or not one.slow]


def run(tmp_path, config, script, defect, planted):
    start = [sys.executable, str(HERE / script), defect, "{port}"]
    made = with_environment(config, tmp_path, {}, start)
    if planted.policy:
        lines = "".join(f'"{row}" = "{what}"\n' for row, what in planted.policy.items())
        made.write_text(f"{made.read_text(encoding='utf-8')}\n[policy]\n{lines}", encoding="utf-8")
    return run_suite(made, tmp_path, only=(*planted.red.split(), *planted.green.split()), workers=1)


def judged(result, planted):
    outcomes = {check["id"]: check["outcome"] for check in result.evidence["checks"]}
    # A client that falls back to plaintext may do so to its own server as well, whatever is being played: that is red at the same gate.
    red = {name for name in result.failed_checks if not name.startswith("plaintext.")}
    assert red == set(planted.red.split()), result.failed_checks
    assert {name: outcomes[name] for name in planted.green.split()} == {
        name: outcomes[name] if name.startswith("A4") else "pass" for name in planted.green.split()
    }
    assert result.failed == {planted.gate}
    assert (result.code, result.evidence["verdict"]) == (1, "NO-GO")


@pytest.mark.parametrize("defect", chosen(REFERENCE_DEFECTS))
def test_reference(tmp_path, defect):
    judged(run(tmp_path, REFERENCE, "planted_tls.py", defect, REFERENCE_DEFECTS[defect]), REFERENCE_DEFECTS[defect])


@pytest.mark.parametrize("defect", chosen(ASYNCPG_DEFECTS))
def test_asyncpg(tmp_path, defect):
    planted = ASYNCPG_DEFECTS[defect]
    judged(run(tmp_path, TARGETS / "aiohttp_asyncpg" / "chaos.toml", "planted_asyncpg.py", defect, planted), planted)


def test_without_a_word_in_policy_it_is_only_reported(tmp_path):
    """The same defect, the same row: not a failure, and said all the same."""
    planted = Planted("", "A2.reconnect C16.reconnect")
    result = run(tmp_path, REFERENCE, "planted_tls.py", "any_authentication_will_do", planted)
    (found,) = [check for check in result.evidence["checks"] if check["id"] == "A2.reconnect"]
    assert found["outcome"] == "not_applicable"
    assert "its password inside TLS. Reported (high)" in found["detail"]
    assert result.failed == set()


def test_every_defect_is_tried():
    assert set(planted_tls.DEFECTS) == set(REFERENCE_DEFECTS)
    assert set(planted_asyncpg.DEFECTS) == set(ASYNCPG_DEFECTS)


@pytest.mark.skipif(not EVERY, reason="half a minute of a core: CHAOS_DETECTION=all")
def test_iterations_without_end(tmp_path):
    """Row A7, where [policy] makes it one to be refused: the bundled service computes them, as libpq does."""
    planted = Planted("A7.start", "C16.reconnect", policy={"A7": "reject"})
    judged(run(tmp_path, REFERENCE, "planted_tls.py", "none", planted), planted)
