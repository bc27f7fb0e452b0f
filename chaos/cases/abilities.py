"""What an environment has to be able to do for a case, by the case's family; and what one that is not ours lacks, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.environments.remote.rails import refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.config import Config

# All that is not listed here needs the database server itself ('server').
ABILITIES: Mapping[str, str] = {
    **dict.fromkeys(("network", "slow"), "network"),
    **dict.fromkeys(("reconnect", "stall", "backoff", "injection", "commit-cut", "stale"), "wire"),
    **dict.fromkeys(("start", "rollback", "rollback-drill", "replicas", "safeguards"), "start"),
    **dict.fromkeys(("corpus-sample", "corpus-fault"), "wire"),
}


def lacking(config: Config) -> Mapping[str, str]:
    """The abilities that the environment of this configuration has not, each with why. All are there where it is started by us."""
    if config.target.url is None:
        return {}
    found = {
        "wire": "needs our own eyes between the target and its database, and the target runs elsewhere",
        "server": "needs a PostgreSQL that is ours to control, and the target runs elsewhere",
        "start": "needs another instance of the target, and it runs elsewhere ([target] url)",
    }
    refused = refusal(config)
    return {"network": refused, **found} if refused else found
