"""What comes out of a run: the bundle that passed, and the report."""

from __future__ import annotations

from collections.abc import Sequence

from torchstone import report
from torchstone.compress import chain
from torchstone.core import console
from torchstone.core.errors import ChainError, MissingPackageError
from torchstone.core.values import Candidate
from torchstone.core.verdict import Verdict
from torchstone.export import bundle
from torchstone.stages.compress import build_all
from torchstone.stages.find import seed_of
from torchstone.stages.read import Data


def publish(data: Data, candidates: Sequence[Candidate], verdict: Verdict) -> None:
    """The bundle of the winner, if there is one; then the report, which says that the run is finished. Where nothing
    passed, the bundle of an earlier judgement stays: what it passed then, it did."""
    winner = next((one for one in candidates if one.id == verdict.winner), None)
    console.say("writing the report" if winner is None else "writing the bundle and the report")
    if winner is None:
        if data.run.bundle.exists():
            console.say(f"note: '{data.run.bundle}' is of an earlier judgement, and stays: nothing passed this one")
    else:
        fallback = _fallback(winner, candidates, data)
        bundle.write(winner, fallback, data.run.bundle, val=lambda artifact: data.sets(artifact, "val")["val"])
    report.write(data.run)


def _fallback(winner: Candidate, candidates: Sequence[Candidate], data: Data) -> Candidate | None:
    """The FP32 model that goes with a winner in less: one of the candidates, else the baseline as ONNX."""
    if not bundle.needs_fallback(winner):
        return None
    found = bundle.fallback_among(candidates)
    if found is not None:
        return found
    if candidates[0].artifact.format != "torch":  # imported: in floating point as it came
        return candidates[0]
    try:
        plan = chain.plan("onnx")
        return build_all([plan], candidates[0], data, seed=seed_of(candidates[0].artifact))[0]
    except (ChainError, MissingPackageError) as error:
        console.say(f"the bundle has no model in FP32: {error}")
        return None
