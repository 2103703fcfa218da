"""Show the last rollout: what was seen, what is proven, what was decided and on which numbers.

Exit code 0: promoted; 1: rolled back or aborted; 3: running or undecided."""

from __future__ import annotations

from torchstone.cli._options import JSON
from torchstone.cli.rollout._store import STATE, STORE
from torchstone.core.errors import ConfigError


def command(*, state: STATE = None, store: STORE = None, json: JSON = False) -> int:
    from torchstone.cli._answers import print_json
    from torchstone.cli.rollout import _store
    from torchstone.serve.rollout.status import status

    with _store.opened(state, store) as connection:
        found = status(connection)
    if found is None:
        raise ConfigError("there has been no rollout", hint="torchstone rollout start --candidate BUNDLE")
    code = _store.CODES[found["status"]]
    if json:
        print_json({**found, "exit_code": code})
    else:
        _store.show(found)
    return code
