"""What the answers to one request have in common: by status media types, headers, and the JSON Schema of their bodies."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from chaos.experiment.claims import NOTHING

if TYPE_CHECKING:
    from chaos.experiment.asking import Asked


def shape(answers: list[Asked]) -> dict[str, Any]:
    """By status; an answer that says only that it cannot answer now says nothing of the contract, unless there is no other."""
    useful = [one for one in answers if one.lasting] or [one for one in answers if one.operation.status is not None]
    by_status: dict[str, list[Asked]] = defaultdict(list)
    for one in useful:
        by_status[str(one.operation.status)].append(one)
    return {status: _one_status(these) for status, these in by_status.items()}


def _one_status(answers: list[Asked]) -> dict[str, Any]:
    names = [set(one.headers) for one in answers]
    return {
        "count": len(answers),
        "media": sorted({one.media for one in answers}),
        "headers": sorted(set.intersection(*names)),
        "seen": sorted(set.union(*names)),
        "schema": _schema([one.value for one in answers if one.value is not NOTHING]),
    }


def _schema(values: list[Any]) -> dict[str, Any] | None:
    """What the values have in common, as a JSON Schema; None without any."""
    from genson import SchemaBuilder  # noqa: PLC0415  (only the contract needs it)

    if not values:
        return None
    builder = SchemaBuilder(schema_uri=None)
    try:
        for value in values:
            builder.add_object(value)
        made: dict[str, Any] = builder.to_schema()
    except RecursionError:  # nested a thousand levels deep
        return None
    return made
