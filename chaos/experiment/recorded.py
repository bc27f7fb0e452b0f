"""A contract as it was recorded: descriptions, shapes of answers, and how the release contradicted itself; in a file, where asked for.

The file holds names of members and types, and no value of any answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chaos.errors import ConfigError, EvidenceUnwritable
from chaos.traffic import openapi

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chaos.traffic.openapi import Description

VERSION = 1
NAMES = {"all", "first", "second"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """`shapes`: request -> {'all', 'first', 'second'}: by status (chaos.checks.shapes), of all answers and of each half of them.

    `description` is None where there is none; `wrong` says why one that there is cannot be used. Any: JSON.
    """

    shapes: Mapping[str, Mapping[str, Any]]
    description: Description | None = None
    wrong: str = ""
    claims: Mapping[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Whole or not at all. Raises EvidenceUnwritable."""
        document = self.description.document if self.description else None
        value = {"version": VERSION, "description": document, "shapes": self.shapes, "claims": self.claims}
        part = path.with_name(f".{path.name}.part")
        try:
            part.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            part.replace(path)
        except OSError as error:
            raise EvidenceUnwritable(
                f"the contract cannot be recorded: {error.strerror}",
                remedy="make the place writable, or name another one: [target] contract",
                where=str(path),
            ) from error

    @classmethod
    def read(cls, path: Path) -> Recorded:
        """Raises ConfigError for what is none of ours."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            _known(value)
            document = value["description"]
            text = json.dumps(document).encode()
            claims = {str(where): str(what) for where, what in value["claims"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ConfigError(
                f"not a recorded contract: {type(error).__name__}: {error}",
                remedy="remove the file, and the next run records it anew",
                where=str(path),
            ) from error
        found = openapi.parse(text, where=str(path)) if document is not None else None
        return cls(shapes=value["shapes"], description=found, claims=claims)


def _known(value: Any) -> None:  # Any: JSON, whatever the file holds
    if value["version"] != VERSION or any(NAMES - set(one) for one in value["shapes"].values()):
        raise ValueError("of another version")
