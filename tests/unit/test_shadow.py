"""Recorded reads that are sent again: which are drawn, how they are paced, and what nobody ever gets to see."""

import gzip
import json
import math

import pytest

from chaos.config import Hosts
from chaos.errors import UsageError
from chaos.traffic.host_names import listed
from chaos.traffic.shadow import SMALL, Replayed, as_lines, draw, pace

SECONDS = 1_790_000_000
SERVES = listed(Hosts(allowed=("api.acme.test",), seo=("*.landing.acme.test",)))


def caddy(number, *, method="GET", uri=None, status=200, host="api.acme.test", **more):
    request = {"method": method, "uri": uri or f"/items/{number}", "host": host, "headers": {"Authorization": ["Bearer abc"]}}
    return json.dumps({"ts": SECONDS + number / 10, "request": request, "status": status, "duration": 0.004, **more})


@pytest.fixture
def log(tmp_path):
    def write(lines, name="access.log"):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def targets(drawn):
    return [one.target for one in drawn.requests]


def test_a_share_is_drawn_by_the_seed(log):
    path = log(caddy(number) for number in range(10_000))
    first, again, other = (draw(path, seed=seed, most=100_000) for seed in (1, 1, 2))
    assert targets(first) == targets(again) != targets(other)
    assert 1_350 <= first.drawn <= 1_650
    assert first.lines == 10_000
    assert "15%" in first.told()


def test_the_same_lines_are_drawn_wherever_the_log_was_cut(log):
    lines = [caddy(number) for number in range(6_000)]
    whole = draw(log(lines), seed=1, most=100_000)
    parts = [draw(log(part, f"{index}.log"), seed=1, most=100_000) for index, part in enumerate((lines[:2_500], lines[2_500:]))]
    assert sorted(targets(whole)) == sorted(target for part in parts for target in targets(part))


def test_of_a_short_log_everything_is_taken(log):
    drawn = draw(log(caddy(number) for number in range(SMALL)), seed=1, most=100_000)
    assert (drawn.drawn, drawn.share) == (SMALL, 1.0)


def test_what_is_kept_is_bounded_and_spread_over_the_log(log):
    drawn = draw(log(caddy(number) for number in range(20_000)), seed=3, most=200)
    assert len(drawn.requests) == 200
    assert drawn.requests[0].at == 0.0
    halves = sum(one.at > 1_000 for one in drawn.requests)
    assert 60 <= halves <= 140


def test_what_is_never_sent_again_is_counted(log):
    lines = [
        caddy(1),
        caddy(2, method="POST"),
        caddy(3, method="DELETE"),
        caddy(4, status=502),
        caddy(5, uri="/logout"),
        caddy(6, uri="/orders/7/approve"),
        caddy(7, uri="/events"),
        "\x00\x01 garbage",
        "{" * 300,
        "",
    ]
    drawn = draw(log(lines), seed=1, most=10)
    assert targets(drawn) == ["/items/1"]
    assert drawn.skipped == {
        "neither GET nor HEAD": 2,
        "answered 5xx or not at all": 1,
        "may do something": 2,
        "streams and upgrades": 1,
        "unreadable": 2,
    }


def test_nothing_personal_is_kept(log):
    personal = "/users/alice%40acme.test?token=s3cr3t&q=flu&page=2"
    drawn = draw(log([caddy(1, uri=personal, host="alice.internal")]), seed=1, most=10, serves=SERVES)
    kept = as_lines(drawn)
    assert not any(word in kept for word in ("alice", "s3cr3t", "flu", "Bearer", "internal"))
    assert "page=2" in kept


def test_a_host_of_the_targets_own_is_kept(log):
    hosts = ("api.acme.test", "shoes.landing.acme.test", "203.0.113.9")
    drawn = draw(log(caddy(number, host=host) for number, host in enumerate(hosts)), seed=1, most=10, serves=SERVES)
    assert [one.host for one in drawn.requests] == ["api.acme.test", "shoes.landing.acme.test", ""]


def test_what_is_written_is_read_again(log, tmp_path):
    drawn = draw(log(caddy(number) for number in range(50)), seed=1, most=100, serves=SERVES)
    kept = tmp_path / "kept.jsonl.gz"
    kept.write_bytes(gzip.compress(as_lines(drawn).encode()))
    assert draw(kept, seed=9, most=100, serves=SERVES).requests == drawn.requests


@pytest.mark.parametrize("share", [0.0, 0.05, 0.21, 1.0, math.nan])
def test_a_share_that_nobody_asked_for_is_a_usage_error(log, share):
    with pytest.raises(UsageError, match="was asked for"):
        draw(log([caddy(1)]), seed=1, most=1, share=share)


def test_a_file_that_is_no_log(log):
    with pytest.raises(UsageError, match="none of its lines"):
        draw(log(["nothing of the kind"] * 3), seed=1, most=1)


def replayed(*times):
    return [Replayed(at=at, method="GET", target=f"/{index}", status=200) for index, at in enumerate(times)]


def test_their_own_pace_is_kept_where_there_is_time_for_it():
    assert [at for at, _ in pace(replayed(0.5, 1.25, 4.75), seconds=60)] == [0.5, 1.25, 4.75]


def test_a_long_log_is_sent_faster():
    planned = pace(replayed(0.5, 1800.5, 3600.5), seconds=36)
    assert [round(at) for at, _ in planned] == [0, 18, 36]
    assert len(planned) == 3


def test_a_log_of_whole_seconds_is_spread_over_them():
    assert [at for at, _ in pace(replayed(0.0, 0.0, 0.0, 0.0, 1.0), seconds=60)] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_speed_that_was_given_leaves_out_what_comes_too_late():
    assert [one.target for _, one in pace(replayed(0.5, 20.5, 100.5), seconds=10, speed=2.0)] == ["/0"]
    assert [one.target for _, one in pace(replayed(0.5, 20.0, 100.5), seconds=10, speed=2.0)] == ["/0", "/1"]
    assert pace([], seconds=1) == []
