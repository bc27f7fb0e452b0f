"""What the documents of the review say of themselves, read and recorded; nothing is sent anywhere.

Facts: 'documents' (JSON: chaos.documents.Examined), 'today' (a date), 'oldest' (days that one may be old); none of them without
[documents] in chaos.toml.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from chaos.documents import UNDECLARED, examine
from chaos.model import now

if TYPE_CHECKING:
    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.model import History
    from chaos.rig import Rig


def documents(rig: Rig, case: Case, recording: Recording) -> History:
    """Read, and kept as facts."""
    del case
    declared = rig.config.documents
    if declared is None:
        recording.facts["absent"] = UNDECLARED
    else:
        recording.facts |= {
            "documents": json.dumps([one.plain() for one in examine(declared.directory)]),
            "today": datetime.fromtimestamp(now(), UTC).date().isoformat(),
            "oldest": str(declared.oldest),
        }
    return recording.history()
