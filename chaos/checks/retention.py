"""How long a log is kept, read from the file that says so: logrotate, Loki, CloudWatch, journald, a life cycle, or any other."""

from __future__ import annotations

import re

DAY = 86_400.0
_UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hour": 3600, "d": DAY, "day": DAY, "w": 7 * DAY, "week": 7 * DAY}
_UNITS |= {"month": 30 * DAY, "y": 365 * DAY, "year": 365 * DAY}
_PERIODS = {"hourly": 1 / 24, "daily": 1, "weekly": 7, "monthly": 30, "yearly": 365}
_SPAN = r"[\"']?(\d+(?:\.\d+)?)\s*(s|sec|m|min|h|hour|d|day|w|week|month|y|year)s?\b"
_IN_DAYS = re.compile(r"retention[\w.-]*?days[\"']?\s*[:=]?\s*[\"']?(\d+)", re.IGNORECASE)
_SPANS = (
    re.compile(rf"(?:retention[\w.-]*|MaxRetentionSec|expire[\w-]*|max_?age)[\"']?\s*[:=]\s*{_SPAN}", re.IGNORECASE),
    re.compile(rf"delete.{{0,200}}?min_age[\"']?\s*:\s*{_SPAN}", re.IGNORECASE | re.DOTALL),
    re.compile(rf"min_age[\"']?\s*:\s*{_SPAN}.{{0,200}}?delete", re.IGNORECASE | re.DOTALL),
)
_COMMENT = re.compile(r"^\s*(?:#|;|//).*$", re.MULTILINE)


def days(text: str, pattern: str | None = None) -> float | None:
    """The days for which logs are kept; None when the text does not say. `pattern`'s first group is the days, where given.

    logrotate(8) removes by `maxage`, else after `rotate` periods; Loki's `retention_period`, journald's `MaxRetentionSec` have units.
    """
    text = _COMMENT.sub("", text)
    if pattern is not None:
        found = re.search(pattern, text, re.MULTILINE)
        try:
            return float(found[1]) if found else None
        except (IndexError, ValueError, TypeError):
            return None
    if found := _IN_DAYS.search(text):
        return float(found[1])
    for one in _SPANS:
        if found := one.search(text):
            return float(found[1]) * _UNITS[found[2].lower()] / DAY
    return _logrotate(text)


def _logrotate(text: str) -> float | None:
    if found := re.search(r"^\s*maxage\s+(\d+)", text, re.MULTILINE):
        return float(found[1])
    count = re.search(r"^\s*rotate\s+(\d+)", text, re.MULTILINE)
    period = re.search(rf"^\s*({'|'.join(_PERIODS)})\b", text, re.MULTILINE)
    return int(count[1]) * _PERIODS[period[1]] if count and period else None
