"""``int8`` beside the field: the same trained network, calibration images and test images, given to NNCF's, ONNX
Runtime's and Olive's own flows as their documentation shows them (``peers/``), and to ours.

*Accuracy.* What each tool made becomes an artifact, answers all test images in the judge's own way, and is compared
with FP32 and with ours image by image. *Speed.* All of them take turns in one session of the judge's clock, at batch 1
on one thread, against eager FP32 and against ours in the same runtime. Bounds are one-sided at 97.5 %. *Time.* From the
trained network on the disk to what the tool says of the result, in a process of its own: for ours that is the verdict
of ``torchstone judge RUN int8@RUNTIME``, stored and said before the bundle and the report are written; for the others
what their example ends with. The end of the process stands in parentheses. The tools take turns, in changing order,
each on all cores; decoded images lie on the disk for all of them.

What the verdicts are worth is not the same. Ours bounds the drop and the speed-up; NNCF's example and Olive print two
accuracies and two speeds, ONNX Runtime's example prints milliseconds. NNCF's spends 30 s in benchmark_app, which is
printed beside, so that it may be taken off.

NNCF and ONNX Runtime are what our step itself builds on: they run with the packages of this environment, so that what
is left is the flow. Olive has an environment of its own, which sees those packages (a .pth file).

Without RUN, LeNet-5 is trained on scikit-learn's digits. The run itself is left alone: everything happens in a copy,
whose ledger counts no look at its test images.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import torchstone
import workbench
from conditions import conditions
from torchstone.config import Settings
from torchstone.core import files, seeding
from torchstone.core.artifact import identified, load_artifact
from torchstone.core.errors import UserError
from torchstone.core.run import Run, run_of
from torchstone.core.values import Artifact, Candidate, InputSpec, MadeBy, OutputSpec
from torchstone.core.verdict import AccuracyResult
from torchstone.judge import accuracy
from torchstone.judge.evidence import Evidence
from torchstone.runtimes import default_runtime
from torchstone.stages import clock, train
from torchstone.stages.compress import build_all, plan_all
from torchstone.stages.find import baseline_of, find_artifact, seed_of
from torchstone.stages.read import Data, opened, read

OURS = {"torchstone@openvino": "openvino", "torchstone@onnxruntime": "onnxruntime"}
PEERS = {"nncf": "openvino", "onnxruntime": "onnxruntime", "olive": "onnxruntime"}
"""Tool: the runtime of what it makes."""
WORKERS = Path(__file__).parent / "peers"
REQUIREMENTS = {"olive": ("olive-ai==0.13.0", "pydantic==2.11.10")}
"""Of the peers with an environment of their own. Olive's evaluators fail under pydantic 2.14: where an evaluator has no
type, its enum raises an AttributeError that older versions took for a refusal."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all tools are given."""

    run: Run
    trained: Artifact
    place: Path
    images: int
    max_drop: float
    benchmark_seconds: int
    pythons: dict[str, Path]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One tool, once."""

    seconds: float
    """Until it says what the result is worth."""
    whole: float
    """Until its process has ended."""
    says: str
    made: dict[str, Any]
    """Of a peer: the format and names of the files that it left."""


def copied(artifact: Artifact, place: Path) -> Run:
    """A run with the images and the trained network alone, in place of what was left there before. It shares the
    decoded images with the one that it was copied from, and nothing else."""
    source, run = run_of(artifact), Run(place / "run")
    files.remove(place)
    run.artifacts.mkdir(parents=True)
    source.cache.mkdir(parents=True, exist_ok=True)
    run.cache.symlink_to(source.cache.resolve(), target_is_directory=True)
    shutil.copytree(source.data, run.data)
    shutil.copytree(artifact.directory, run.artifacts / artifact.directory.name)
    for path in (source.config, source.environment):
        shutil.copy(path, run.root / path.name)
    return run


def handed_out(task: Task, data: Data) -> None:
    """Write what the peers read: the calibration images that ``int8`` takes, and the test images with their labels."""
    calib, test = (data.sets(task.trained, part)[part] for part in ("calib", "test"))
    rows = seeding.sample_rows(calib.labels, task.images, "calibration")
    arrays = {"calibration": calib.images(rows), "images": test.images(slice(None)), "labels": test.labels}
    for name, array in arrays.items():
        np.save(task.place / f"{name}.npy", array, allow_pickle=False)


def environment(name: str, place: Path) -> Path:
    """The Python of an environment with that peer and the packages of this one, made on the first call."""
    root = place / name
    python, stamp = root / "bin" / "python", root / "requirements.json"
    # An editable install is a .pth file itself, which Python does not read in a folder that a .pth file adds.
    shared = [sysconfig.get_path("purelib"), str(Path(torchstone.__file__).parents[1])]
    wanted = json.dumps([REQUIREMENTS[name], shared])
    if not stamp.exists() or stamp.read_text() != wanted:
        venv.create(root, with_pip=True, clear=True)
        site = root / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        (site / "shared.pth").write_text("\n".join(shared) + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS[name]], check=True)
        stamp.write_text(wanted)
    return python


def turn_of_ours(tool: str, task: Task) -> Turn:
    run = copied(task.trained, task.place / tool)
    typed = [
        sys.executable, "-m", "torchstone", "judge", str(run.root), f"int8={task.images}@{OURS[tool]}",
        "--max-drop", str(task.max_drop), "--skip-portraits", "--json",
    ]  # fmt: skip
    said, seconds, lines = timed(typed, task, allowed=(0, 1, 3))
    row = json.loads(said)["rows"][-1]
    says = f"{row['outcome']}: {row['reason']}"
    return Turn(seconds=heard(f"{row['name']}: {says}", lines), whole=seconds, says=says, made={})


def turn_of_peer(tool: str, task: Task) -> Turn:
    out = task.place / tool
    files.remove(out)
    out.mkdir()
    given = {name: str(task.place.resolve() / f"{name}.npy") for name in ("calibration", "images", "labels")}
    asked = task.place / f"{tool}.json"
    files.write_json(
        asked,
        {
            **given,
            "artifact": str(task.trained.directory.resolve()),
            "out": str(out.resolve()),
            "benchmark_seconds": task.benchmark_seconds,
        },
    )
    said, seconds, lines = timed([str(task.pythons[tool]), str(WORKERS / f"with_{tool}.py"), str(asked)], task)
    made = json.loads(said.strip().splitlines()[-1])
    return Turn(seconds=heard(made["says"], lines), whole=seconds, says=made["says"], made=made)


def heard(what: str, lines: list[tuple[float, str]]) -> float:
    """The second at which a tool said that on stderr."""
    for at, line in lines:
        if line == what:
            return at
    raise SystemExit("\n".join(line for _, line in lines[-20:]) + f"\nerror: no line says '{what}'")


def timed(typed: list[str], task: Task, allowed: tuple[int, ...] = (0,)) -> tuple[str, float, list[tuple[float, str]]]:
    """What a command prints, the seconds that it took, and its lines on stderr with the second of each."""
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
    lines: list[tuple[float, str]] = []
    with tempfile.TemporaryFile("w+") as printed:
        begin = time.perf_counter()
        with subprocess.Popen(
            typed, cwd=task.place, env={**os.environ, **quiet}, stdout=printed, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                lines.append((time.perf_counter() - begin, line.rstrip("\n")))  # noqa: PERF401 - the time of each
        seconds = time.perf_counter() - begin
        printed.seek(0)
        said = printed.read()
    if process.returncode not in allowed:
        last = "\n".join(line for _, line in lines[-40:])
        raise SystemExit(f"{said[-1000:]}\n{last}\nerror: {typed} ended with {process.returncode}")
    return said, seconds, lines


def adopted(tool: str, made: dict[str, Any], task: Task) -> Candidate:
    """What a peer made, as a candidate of the run."""
    place = task.run.artifacts / tool
    with files.whole_directory(place) as directory:
        for name in made["files"]:
            shutil.copy(task.place / tool / name, directory / name)
        described = task.trained.model_copy(
            update={
                "format": made["format"],
                "input": InputSpec(name="image"),
                "output": OutputSpec(name="logits"),
                "parent": task.trained.id,
                "made_by": MadeBy(step=tool, version=1),
            }
        )
        identified(described, directory).save(directory / "artifact.json")
    artifact = load_artifact(place)
    return Candidate(name=tool, artifact=artifact, runtime=default_runtime(artifact.format))


def contest(task: Task, data: Data, turns: dict[str, list[Turn]], quartets: int) -> dict[str, Any]:
    """What the judge says of all of them: a row a tool, and of ours against each peer."""
    base = baseline_of(task.trained)
    candidates: dict[str, Candidate] = {}
    for tool in turns:
        if tool in OURS:
            plans = plan_all([f"int8={task.images}@{OURS[tool]}"])
            built = build_all(plans, base, data, seed=seed_of(task.trained))[0]
            candidates[tool] = built.model_copy(update={"name": tool})
        else:
            candidates[tool] = adopted(tool, turns[tool][-1].made, task)
    answers = {name: workbench.answered(one, data) for name, one in {base.name: base, **candidates}.items()}
    against = [
        (mine, peer) for peer in candidates if peer in PEERS for mine in candidates if OURS.get(mine) == PEERS[peer]
    ]
    session = workbench.timed(
        base,
        list(candidates.values()),
        clock.pixels(data, [base]),
        quartets,
        [(candidates[mine], candidates[peer]) for mine, peer in against],
    )
    speeds = {row.name: row for row in session.rows}
    groups = Evidence(data.run).groups(answers[base.name].items)

    def drop(one: str, than: str) -> AccuracyResult:
        return accuracy.compare("test", answers[than], answers[one], task.trained.classes, workbench.LEVEL, groups)

    rows = [
        [
            tool, until(turns[tool]), f"{drop(tool, base.name).top1:.2f}",
            workbench.lost(drop(tool, base.name)), f"{speeds[tool].ms:.3f}", speeds[tool].faster(base.name),
            f"{speeds[tool].size_mb:.2f}",
        ]
        for tool in candidates
    ]  # fmt: skip
    top1 = drop(next(iter(candidates)), base.name).baseline_top1
    said = (
        f"{task.trained.architecture} (eager FP32: top-1 {top1:.2f}, {session.baseline_ms:.3f} ms), {task.images} "
        f"calibration images, {len(answers[base.name]):,} test images, batch 1, one thread; {session.said}"
    )
    columns = ("", "seconds to the verdict (the end)", "top-1", "points lost (at most)", "ms", "against FP32", "MB")
    workbench.printed(said, columns, rows)
    print()
    workbench.printed(
        "ours against theirs, on the same images and in the same session",
        ("", "points lost (at most)", "times as fast (at least–at most)", "time to the verdict"),
        [
            [
                f"{mine} / {peer}", workbench.lost(drop(mine, peer)), speeds[mine].faster(peer),
                f"{ratio(turns[mine], turns[peer]):.2f}×",
            ]
            for mine, peer in against
        ],
    )  # fmt: skip
    print()
    for tool, found in turns.items():
        print(f"{tool}: {found[-1].says}")
    if "nncf" in turns:
        print(f"(of nncf's time, {2 * task.benchmark_seconds} s are benchmark_app's)")
    return {
        "session": session,
        "accuracy": {tool: drop(tool, base.name) for tool in candidates},
        "against": {f"{mine} / {peer}": drop(mine, peer) for mine, peer in against},
        "seconds": {tool: [turn.seconds for turn in found] for tool, found in turns.items()},
        "whole": {tool: [turn.whole for turn in found] for tool, found in turns.items()},
        "says": {tool: found[-1].says for tool, found in turns.items()},
    }


def until(turns: list[Turn]) -> str:
    """Seconds to what the tool says, and to the end of its process."""
    said, whole = (statistics.median(getattr(turn, name) for turn in turns) for name in ("seconds", "whole"))
    return f"{said:.1f} ({whole:.1f})"


def ratio(ours: list[Turn], theirs: list[Turn]) -> float:
    """Median over the blocks of their seconds for one of ours."""
    return statistics.median(their.seconds / our.seconds for our, their in zip(ours, theirs, strict=True))


def started_from(run: Path | None, place: Path) -> Artifact:
    """The trained network of ``run``; LeNet-5 on digits where none was named."""
    if run is not None:
        return find_artifact(str(run))
    settings = Settings(
        data="digits", name="digits", runs=place / "digits", model="lenet5", epochs=8, test_fraction=0.36
    )
    return train.trained(settings, read(settings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="a run with a trained network, or its artifact")
    tools = [*OURS, *PEERS]
    parser.add_argument("--tools", nargs="+", default=tools, choices=tools)
    parser.add_argument("--images", type=int, default=128, help="for calibration, at most")
    parser.add_argument("--max-drop", type=float, default=0.5, help="points, for our verdict")
    parser.add_argument("--blocks", type=int, default=1, help="turns of each tool, in alternated order")
    parser.add_argument("--quartets", type=int, default=16, help="of each comparison")
    parser.add_argument("--benchmark-seconds", type=int, default=15, help="of NNCF's example, for each model")
    parser.add_argument("--envs", type=Path, default=Path(tempfile.gettempdir()) / "torchstone-peers")
    parser.add_argument("--place", type=Path, default=Path("runs") / "quantisation-peers", help="for copies and files")
    parser.add_argument("--json", type=Path, default=Path("quantisation_peers.json"))
    given = parser.parse_args()
    print(conditions())
    place = given.place.resolve()
    place.mkdir(parents=True, exist_ok=True)
    try:
        run = copied(started_from(given.run, place), place / "contest")
        task = Task(
            run=run, trained=find_artifact(str(run.root)), place=place, images=given.images, max_drop=given.max_drop,
            benchmark_seconds=given.benchmark_seconds,
            pythons={
                tool: environment(tool, given.envs.resolve()) if tool in REQUIREMENTS else Path(sys.executable)
                for tool in given.tools
                if tool in PEERS
            },
        )  # fmt: skip
        data = opened(run)
        handed_out(task, data)
        turns: dict[str, list[Turn]] = {tool: [] for tool in given.tools}
        for block in range(given.blocks):
            for tool in given.tools[:: 1 if block % 2 == 0 else -1]:
                turns[tool].append((turn_of_ours if tool in OURS else turn_of_peer)(tool, task))
                print(f"{tool}: {until(turns[tool][-1:])} s (load {os.getloadavg()[0]:.1f})", flush=True)
        found = contest(task, data, turns, given.quartets)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    workbench.written(given.json, images=given.images, level=workbench.LEVEL, **found)


if __name__ == "__main__":
    main()
