"""Let a candidate see live traffic: beside the stable model (shadow), or in its place for some of it (canary).

In shadow mode the stable model answers and both are compared on the same requests; a canary answers a share of them
itself, and needs many more labels. It is rolled back at the first proof of harm, at most 5 % of harmless ones by
mistake however long one watches, and promoted at the proof that it is no worse than the margins. Labels prove that
where they are of all requests, or of requests drawn at random (--labels); who sends a few chooses them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torchstone.cli._options import JSON
from torchstone.cli.rollout._store import STATE, STORE
from torchstone.core.errors import ConfigError, nearest


def command(
    *,
    candidate: Annotated[Path, typer.Option(help="The bundle to try.")],
    mode: Annotated[str, typer.Option(help="shadow or canary.")] = "shadow",
    weight: Annotated[
        str | None, typer.Option(help="Share of the requests it sees, such as 5%. [default: shadow 100%, canary 5%]")
    ] = None,
    labels: Annotated[
        str, typer.Option(help="Which requests are labelled: some (they roll back, a person promotes), random, all.")
    ] = "some",
    margin: Annotated[float, typer.Option(help="Points of accuracy that may be lost.")] = 0.5,
    errors_margin: Annotated[float, typer.Option(help="Points that failed requests may rise by.")] = 0.5,
    latency_margin: Annotated[float, typer.Option(help="Points that slow answers may rise by.")] = 5.0,
    slow_quantile: Annotated[
        float, typer.Option(help="Slower than this share of the stable model's answers is slow.")
    ] = 0.95,
    horizon_labels: Annotated[int, typer.Option(min=1, help="Labels after which it ends undecided.")] = 50_000,
    horizon_days: Annotated[float, typer.Option(help="Days after which it ends undecided.")] = 30.0,
    model: Annotated[
        str | None, typer.Option(help="Name of the model it may replace, where there are several.")
    ] = None,
    state: STATE = None,
    store: STORE = None,
    json: JSON = False,
) -> int:
    import secrets
    import time

    from pydantic import ValidationError

    from torchstone.cli._answers import print_json
    from torchstone.cli.rollout import _store
    from torchstone.core.artifact import load_artifact
    from torchstone.serve.rollout import record
    from torchstone.serve.rollout.plan import FEEDBACK_BIAS, LABELS, MODES, WEIGHTS, Plan, foreseen, weight_of

    if mode not in MODES:
        raise ConfigError(f"unknown mode '{mode}'", hint=nearest(mode, MODES))
    if labels not in LABELS:
        raise ConfigError(f"unknown --labels '{labels}'", hint=nearest(labels, LABELS))
    new = load_artifact(candidate)
    with _store.opened(state, store, candidate) as connection:
        name, bundle, old = record.stable(connection, model)
        record.check_candidate(new, candidate, load_artifact(bundle), bundle)
        try:
            plan = Plan.model_validate(
                {
                    "id": record.new_id(), "model": name, "candidate": str(candidate.resolve()),
                    "candidate_id": new.id, "stable": str(bundle), "stable_id": old, "mode": mode,
                    "weight": WEIGHTS[mode] if weight is None else weight_of(weight), "salt": secrets.token_hex(8),
                    "labels": labels, "margin": margin / 100, "errors_margin": errors_margin / 100,
                    "latency_margin": latency_margin / 100, "slow_quantile": slow_quantile,
                    "horizon_labels": horizon_labels, "horizon_days": horizon_days, "started": time.time(),
                }
            )  # fmt: skip
        except ValidationError as error:
            first = error.errors()[0]
            reason, _, hint = first["msg"].removeprefix("Value error, ").partition("; ")
            raise ConfigError(
                f"--{str(first['loc'][0]).replace('_', '-')} is refused: {reason[:1].lower()}{reason[1:]}",
                hint=hint or None,
            ) from None
        record.start(connection, plan)
    if json:
        print_json(plan.model_dump(mode="json"))
        return 0
    _store.say(f"rollout {plan.id}: {mode} of {100 * plan.weight:g} % against '{bundle}'")
    _store.say(f"{foreseen(plan)}{'; a canary needs many times that' if mode == 'canary' else ''}")
    _store.say(f"labels: {labels}, {LABELS[labels]}")
    _store.say(FEEDBACK_BIAS)
    return 0
