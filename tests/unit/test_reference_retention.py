"""The log file that the reference service writes is kept for as long as retention.toml says."""

import os

from chaos.checks import retention
from chaos.targets.reference.retention import DAY, POLICY, DailyFile, retention_days

NOON = 20_000 * DAY + DAY // 2


def test_a_file_a_day_and_none_older_than_the_policy(tmp_path):
    now = [NOON]
    path = tmp_path / "service.log"
    log = DailyFile(path, clock=lambda: now[0])
    for day in range(40):
        log.write(f"day {day}\n")
        now[0] += DAY
    log.write("today\n")
    log.close()
    kept = sorted(path.parent.glob("service.log.*"))
    assert len(kept) == retention_days() == 30
    assert kept[-1].read_text() == "day 39\n"
    assert path.read_text() == "today\n"


def test_other_files_stay(tmp_path):
    now = [NOON]
    (tmp_path / "service.log.gz").write_text("x")
    log = DailyFile(tmp_path / "service.log", days=0, clock=lambda: now[0])
    now[0] += 5 * DAY
    log.write("x\n")
    log.close()
    assert (tmp_path / "service.log.gz").exists()


def test_a_process_that_starts_again_turns_yesterdays_file(tmp_path):
    path = tmp_path / "service.log"
    path.write_text("yesterday\n")
    os.utime(path, (NOON - DAY, NOON - DAY))
    log = DailyFile(path, clock=lambda: NOON)
    log.write("today\n")
    log.close()
    assert path.read_text() == "today\n"
    assert len(list(tmp_path.glob("service.log.*"))) == 1


def test_the_check_reads_the_policy():
    assert retention.days(POLICY.read_text(encoding="utf-8")) == 30
