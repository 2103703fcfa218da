"""``torchstone serve`` beside LitServe, BentoML and FastAPI with a handler written by hand: requests a second and p99.

All serve the same bundle (its ONNX file, labels and preprocessing) in one worker that is pinned to one core; wrk, on
another, posts the same JPEG files in turn over 32 connections. Each server is started anew for each block, answers a
few images as the bundle itself does or counts for nothing, is warmed up, and then loaded; a block with an answer that
is no 200 is void. wrk asks again when it has its answer, so its p99 is of a closed loop, which knows nothing of those
who would have come meanwhile (what users would meet, ``torchstone load`` says). The servers take turns, the order is
turned each block, and ratios stand with their bounds over the
blocks (one-sided 97.5 %, by the exact sign test of the judge's clock: six blocks are the fewest).

Each peer has an environment of its own, with the versions of ONNX Runtime, Pillow and NumPy of this one, and settings
of its own: in a short rehearsal each is tried, and the quickest is kept. What they share by hand is
``peers/handwritten.py``. 'fastapi-prepare' makes its pixels by torchstone's own function, so that what is left is HTTP
and batching. 'nothing' is no server: decoder and runtime alone on that core, in batches as the server takes them.

torchstone runs without cache and without log of predictions, since the others have neither; 'torchstone-log' writes its
log. Its batches are as large as it finds right when it starts (``--max-batch``, 32, bounds them).

``make`` makes the two bundles that the bars are about, in a minute; ``measure`` takes them, or any other bundle of an
ONNX file. ``install`` builds the environments, which ``measure`` does otherwise.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
import venv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import pinned
import serve_cases
import torchstone
import workbench
from conditions import conditions
from pinned import Request
from serve_cases import Case
from torchstone.core.errors import UserError
from torchstone.core.numbers import rounded_down, rounded_up
from torchstone.judge.speed import rank

PEERS = Path(__file__).parent / "peers"
OURS, NOTHING = "torchstone", "nothing"
SAME = ("onnxruntime", "numpy", "pillow")
"""Packages that every environment has in the version of this one."""
REQUIREMENTS = {
    "litserve": ("litserve==0.2.19",),
    "bentoml": ("bentoml==1.4.39",),
    "fastapi": ("fastapi==0.165.0", "uvicorn[standard]==0.54.0"),
}
"""Environment: what is installed besides."""
BORROWED = {"fastapi": ("simplejpeg", "filelock")}
"""And for torchstone's ``prepare`` alone, in the version of this one."""
SETTINGS: dict[str, tuple[dict[str, Any], ...]] = {
    "litserve": ({"batch": 8, "wait": 0.005}, {"batch": 32, "wait": 0.01}, {"batch": 1, "wait": 0.0}),
    "bentoml": ({"batch": 32}, {"batch": 8}, {"batch": 1}),
    "fastapi": ({"threaded": False, "prepare": False}, {"threaded": True, "prepare": False}),
    "fastapi-prepare": ({"threaded": False, "prepare": True}, {"threaded": True, "prepare": True}),
}
"""Tool: the settings that are tried."""
TOOLS = (OURS, "torchstone-log", *SETTINGS, NOTHING)
BARS: dict[str, tuple[tuple[str, str, float], ...]] = {
    "lenet5": (("litserve", "rate", 3.0), ("litserve", "p99", 1.0)),
    "resnet18-int8": (
        ("litserve", "rate", 1.0), ("bentoml", "rate", 1.0), ("fastapi", "rate", 1.0), (NOTHING, "rate", 0.85),
    ),
}  # fmt: skip
"""Case: rival, what is compared, and what the lower bound of our ratio should reach."""
MAX_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Bench:
    """How it is measured."""

    place: Path
    pythons: dict[str, Path]
    cores: tuple[int, int]
    """Of the servers, and of wrk."""
    connections: int
    warm_up: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Block:
    """One turn of one tool."""

    rate: float = math.nan
    """Images a second."""
    p50: float = math.nan
    """Milliseconds, like p99; NaN where there is no request."""
    p99: float = math.nan
    first: float = math.nan
    """Seconds from the start to the first answer."""
    megabytes: float = math.nan
    batch: float = math.nan
    """Images in a batch of ours, in the mean."""
    void: str = ""
    """Why it does not count."""


@dataclass
class Contest:
    """One case, all blocks."""

    case: Case
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    blocks: dict[str, list[Block]] = field(default_factory=dict)

    def ratios(self, rival: str, what: str) -> list[float]:
        """By block: how many times ours is better, of those in which both count."""
        found = []
        for mine, their in zip(self.blocks[OURS], self.blocks[rival], strict=True):
            if not mine.void and not their.void:
                here, there = getattr(mine, what), getattr(their, what)
                found.append(here / there if what == "rate" else there / here)
        return found

    def median(self, tool: str, what: str) -> float:
        counted = [getattr(block, what) for block in self.blocks[tool] if not block.void]
        return statistics.median(counted) if counted else math.nan


# --- who serves it ---------------------------------------------------------------------------------------------------


def environment(name: str, envs: Path) -> Path:
    """The Python of a peer's environment, made on the first call."""
    root = envs / f"serve-{name}"
    python, stamp = root / "bin" / "python", root / "requirements.json"
    shared = (*SAME, *BORROWED.get(name, ()))
    packages = [*REQUIREMENTS[name], *(f"{package}=={metadata.version(package)}" for package in shared)]
    if not stamp.exists() or stamp.read_text() != json.dumps(packages):
        print(f"installing {', '.join(packages)}", flush=True)
        venv.create(root, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        stamp.write_text(json.dumps(packages))
    return python


def environment_of(tool: str) -> str | None:
    """The environment of a tool; None: this one."""
    return next((name for name in REQUIREMENTS if tool.partition("-")[0] == name), None)


def command(
    tool: str, setting: dict[str, Any], case: Case, port: int, bench: Bench
) -> tuple[list[str], dict[str, str]]:
    """What is typed to serve the case, and the environment variables beside."""
    quiet = {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(bench.place / "bentoml")}
    if environment_of(tool) is None:
        state = bench.place / "state"
        shutil.rmtree(state, ignore_errors=True)
        # A closed loop waits by itself: behind 32 connections and a large model half a second, which no other refuses.
        typed = [sys.executable, "-m", "torchstone", "serve", str(case.bundle), "--port", str(port), "--cache", "none",
                 "--state", str(state), "--max-batch", str(MAX_BATCH), "--max-wait-ms", "10000"]  # fmt: skip
        return typed + ([] if tool == "torchstone-log" else ["--no-log"]), {}
    own = str(Path(torchstone.__file__).parents[1]) if setting.get("prepare") else ""
    task = json.dumps({"bundle": str(case.bundle), "port": port, "setting": setting})
    python = str(bench.pythons[str(environment_of(tool))])
    if tool == "bentoml":
        service = "Batched" if setting["batch"] > 1 else "Single"
        typed = [python, "-m", "bentoml", "serve", f"serve_bentoml:{service}", "--host", "127.0.0.1",
                 "--port", str(port), "--working-dir", str(PEERS)]  # fmt: skip
        return typed, {**quiet, "PYTHONPATH": own, "SERVE_TASK": task}
    return [python, str(PEERS / f"serve_{environment_of(tool)}.py"), task], {"PYTHONPATH": own}


def request(tool: str, setting: dict[str, Any], case: Case, bench: Bench) -> Request:
    formed = tool == "bentoml" and setting["batch"] > 1
    path = "/v1/classify" if environment_of(tool) is None else "/classify"
    return Request.of(path, case.images, bench.place / "bodies" / tool, "images" if formed else None)


def top1(answer: Any) -> int:
    """The class that an answer of any of them names."""
    if isinstance(answer, list):
        (answer,) = answer
    if "predictions" in answer:
        (answer,) = answer["predictions"]
    return int(answer["top"][0]["index"])


# --- one after the other ---------------------------------------------------------------------------------------------


def block(tool: str, setting: dict[str, Any], case: Case, bench: Bench, seconds: float) -> Block:
    """One turn: started, proven, warmed up, loaded, ended."""
    if tool == NOTHING:
        return without_server(case, bench, seconds)
    asked = request(tool, setting, case, bench)
    port = pinned.free_port()
    typed, env = command(tool, setting, case, port, bench)
    log = bench.place / f"{tool}.log"
    core, client = bench.cores
    try:
        with pinned.started(typed, port, asked, core=core, log=log, place=bench.place, env=env) as server:
            if wrong := disagreeing(((row, top1(server.ask(asked, row))) for row in case.expected), case):
                return Block(void=wrong)
            if bench.warm_up:
                pinned.loaded(port, asked, bench.warm_up, connections=bench.connections, core=client)
            found = pinned.loaded(port, asked, seconds, connections=bench.connections, core=client)
            errors = ", ".join(f"{count} × {name}" for name, count in found.errors.items() if count)
            return Block(
                rate=found.rate, p50=found.p50, p99=found.p99, first=server.seconds, megabytes=server.megabytes(),
                batch=batches(port) if asked.path == "/v1/classify" else math.nan,
                void="" if found.clean else f"wrk counts errors: {errors or 'no answer at all'}",
            )  # fmt: skip
    except (RuntimeError, OSError) as error:
        return Block(void=str(error))


def without_server(case: Case, bench: Bench, seconds: float) -> Block:
    given = bench.place / "bodies" / NOTHING
    paths = [str(given / str(row)) for row in range(len(case.images))]
    Request.of("", case.images, given)
    task = {"bundle": str(case.bundle), "images": paths, "waiting": bench.connections, "warm_up": bench.warm_up,
            "seconds": seconds}  # fmt: skip
    done = subprocess.run(
        pinned.pinned(bench.cores[0], [sys.executable, str(PEERS / "serve_nothing.py"), json.dumps(task)]),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        return Block(void=done.stderr[-2000:])
    found = json.loads(done.stdout.splitlines()[-1])
    wrong = disagreeing(((row, found["said"][row]) for row in case.expected), case)
    return Block(rate=found["rate"], batch=found["batch"], void=wrong)


def disagreeing(answers: Iterable[tuple[int, int]], case: Case) -> str:
    """The first answer that is not the bundle's own, in words."""
    for row, found in answers:
        if found != case.expected[row]:
            return f"image {row} is class {found} here, class {case.expected[row]} by the bundle itself"
    return ""


def batches(port: int) -> float:
    """Images in a batch, in the mean since the server started."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    values = {
        end: sum(float(value) for value in re.findall(rf"^torchstone_batch_images_{end}\S* (\S+)$", text, re.MULTILINE))
        for end in ("sum", "count")
    }
    return values["sum"] / values["count"] if values["count"] else math.nan


def rehearsed(tool: str, case: Case, bench: Bench, seconds: float) -> dict[str, Any]:
    """The setting with the most answers a second."""
    settings = SETTINGS.get(tool, ({},))
    if len(settings) == 1 or not seconds:
        return settings[0]
    rates = []
    for setting in settings:
        found = block(tool, setting, case, bench, seconds)
        rates.append(-1.0 if found.void else found.rate)
        print(f"  {tool} {spelt(setting)}: {found.void or f'{found.rate:.0f}/s'}", flush=True)
    if max(rates) < 0:
        raise SystemExit(f"error: {tool} gave no right answers; its last words are in {bench.place / f'{tool}.log'}")
    return settings[rates.index(max(rates))]


def held(case: Case, tools: Sequence[str], bench: Bench, blocks: int, rehearsal: float) -> Contest:
    """All blocks of a case."""
    contest = Contest(case=case, blocks={tool: [] for tool in tools})
    contest.settings = {tool: rehearsed(tool, case, bench, rehearsal) for tool in tools}
    for number in range(blocks):
        for tool in tools[:: 1 if number % 2 == 0 else -1]:
            found = block(tool, contest.settings[tool], case, bench, bench.seconds)
            contest.blocks[tool].append(found)
            said = found.void or f"{found.rate:.0f}/s" + ("" if math.isnan(found.p99) else f", p99 {found.p99:.1f} ms")
            print(f"  block {number + 1}, {tool}: {said} (load {os.getloadavg()[0]:.1f})", flush=True)
    return contest


# --- what it says ----------------------------------------------------------------------------------------------------


def bounded(ratios: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Their median with its one-sided bounds; None where there are too few of them."""
    if not ratios:
        return math.nan, None, None
    ordered, k = sorted(ratios), rank(len(ratios), workbench.LEVEL)
    return statistics.median(ordered), ordered[k - 1] if k else None, ordered[-k] if k else None


def written_out(ratios: Sequence[float]) -> str:
    """'3.41× (3.20–3.62)'."""
    middle, lower, upper = bounded(ratios)
    if math.isnan(middle):
        return "—"
    if lower is None or upper is None:
        return f"{middle:.2f}×"
    return f"{middle:.2f}× ({rounded_down(lower, 2):.2f}–{rounded_up(upper, 2):.2f})"


def spelt(setting: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in setting.items())


def told(contest: Contest, bench: Bench) -> list[dict[str, Any]]:
    """Print one case; what came of the bars."""
    number = "{:,.1f}".format
    rows = []
    for tool, turns in contest.blocks.items():
        values = [contest.median(tool, name) for name in ("rate", "p50", "p99", "first", "megabytes")]
        beside = ["", ""]
        if tool != OURS and OURS in contest.blocks:
            beside = [written_out(contest.ratios(tool, "rate")), written_out(contest.ratios(tool, "p99"))]
        setting = spelt(contest.settings[tool])
        if not math.isnan(batch := contest.median(tool, "batch")):
            setting = f"batches of {batch:.1f}"
        void = sum(bool(turn.void) for turn in turns)
        rows.append([
            tool, setting, *("—" if math.isnan(value) else number(value) for value in values), *beside,
            str(void) if void else "",
        ])  # fmt: skip
    title = (
        f"{contest.case.name}: {len(contest.case.images)} JPEG files of {kilobytes(contest.case.images):.1f} kB, "
        f"{bench.connections} connections, {len(next(iter(contest.blocks.values())))} blocks of {bench.seconds:g} s"
    )
    columns = (
        "",
        "setting",
        "images/s",
        "p50 ms",
        "p99 ms",
        "first s",
        "MB",
        "torchstone is",
        "its p99 is lower",
        "void",
    )
    workbench.printed(title, columns, rows)
    print()
    return [judged(contest, *bar) for bar in BARS.get(contest.case.name, ()) if {bar[0], OURS} <= set(contest.blocks)]


def judged(contest: Contest, rival: str, what: str, least: float) -> dict[str, Any]:
    """One bar, printed."""
    middle, lower, _ = bounded(contest.ratios(rival, what))
    outcome = "too few blocks" if lower is None else "met" if lower >= least else "missed"
    unit = "requests a second" if what == "rate" else "p99 of a closed loop (blind to who waits), theirs over ours"
    print(
        f"bar: {unit} against {rival}, lower bound ≥ {least:g}: {outcome} ({written_out(contest.ratios(rival, what))})"
    )
    return {
        "rival": rival,
        "what": what,
        "least": least,
        "ratio": None if math.isnan(middle) else middle,
        "lower": lower,
        "outcome": outcome,
    }


def kilobytes(images: Sequence[bytes]) -> float:
    return statistics.median(len(image) for image in images) / 1e3


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("make", "install", "measure"):
        own = verbs.add_parser(verb)
        own.add_argument("--place", type=Path, default=Path("runs") / "serve-peers", help="for bundles and files")
        own.add_argument("--envs", type=Path, default=Path(tempfile.gettempdir()) / "torchstone-peers")
    own.add_argument("--case", nargs="+", default=list(BARS), choices=BARS, help="of those that 'make' has made")
    own.add_argument("--bundle", type=Path, help="instead of that case's; with --images")
    own.add_argument("--images", type=Path, help="a folder of JPEG files for --bundle")
    own.add_argument("--count", type=int, default=64, help="images that are posted in turn")
    own.add_argument("--tools", nargs="+", default=list(TOOLS), choices=TOOLS)
    own.add_argument("--blocks", type=int, default=8)
    own.add_argument("--seconds", type=float, default=8, help="of a block")
    own.add_argument("--warm-up", type=float, default=2, help="seconds before each block")
    own.add_argument("--rehearsal", type=float, default=4, help="seconds for each setting; 0: the first one is taken")
    own.add_argument("--connections", type=int, default=32)
    own.add_argument("--json", type=Path, default=Path("serve_peers.json"))
    given = parser.parse_args()
    if given.verb == "measure" and given.bundle and (given.images is None or len(given.case) > 1):
        parser.error("--bundle takes --images, and one --case whose bars apply")
    return given


def measure(given: argparse.Namespace) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2 or shutil.which("wrk") is None:
        raise SystemExit("error: this takes two cores, and wrk (Debian's package of that name)")
    peers = {name for tool in given.tools if (name := environment_of(tool)) is not None}
    place = given.place.resolve()
    bench = Bench(
        place=place, pythons={name: environment(name, given.envs.resolve()) for name in sorted(peers)},
        cores=(cores[0], cores[1]), connections=given.connections, warm_up=given.warm_up, seconds=given.seconds,
    )  # fmt: skip
    print(f"{conditions()}; {', '.join(REQUIREMENTS[name][0] for name in sorted(peers))}")
    print(f"servers on core {cores[0]}, wrk on core {cores[1]}")
    contests, bars = [], {}
    for name in given.case:
        bundle, images = given.bundle or place / name / "bundle", given.images or place / name / "images"
        if not bundle.is_dir():
            raise SystemExit(f"error: there is no '{bundle}'; hint: python benchmarks/serve_peers.py make")
        case = serve_cases.case_of(name, bundle, images, given.count)
        contest = held(case, given.tools, bench, given.blocks, given.rehearsal)
        bars[name] = told(contest, bench)
        contests.append(contest)
    found = {
        contest.case.name: {
            "settings": contest.settings,
            "blocks": {tool: [plain(turn) for turn in turns] for tool, turns in contest.blocks.items()},
            "bars": bars[contest.case.name],
        }
        for contest in contests
    }
    workbench.written(given.json, level=workbench.LEVEL, requirements=REQUIREMENTS, cases=found)


def plain(turn: Block) -> dict[str, Any]:
    """JSON knows no NaN."""
    return {name: None if isinstance(it, float) and math.isnan(it) else it for name, it in asdict(turn).items()}


def main() -> None:
    given = parsed()
    try:
        if given.verb == "make":
            serve_cases.make(given.place.resolve())
        elif given.verb == "install":
            for name in REQUIREMENTS:
                environment(name, given.envs.resolve())
        else:
            measure(given)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
