"""Wall time to the same accuracy: ``torchstone train`` beside timm's ``train.py`` and Ultralytics' ``yolo classify``.

All train the same network from fresh weights on the CPU, at the same input size, with the same batch for the same
number of epochs, on the same files: the train and val parts of torchstone's split, as folders of links. The clock runs
from the start of the process, so that imports, reading and measuring count, to the first epoch whose top-1 on val is
high enough; an epoch is over when its line stands in the tool's own log (summary.csv, results.csv, history.parquet).
The tools take turns, each alone on all cores, with nothing kept from before.

Each peer has two recipes. Under its plain name it trains as its documentation says: Ultralytics with its defaults
(which its page on CIFAR-10 uses, too), timm, whose documentation has none for small images, with its script's defaults,
but a warm-up of one epoch instead of five. As ``timm-ours`` and ``ultralytics-ours`` it is given what torchstone's
recipe says as far as it has flags for it, so that what is left is the tool. A recipe is most of what makes a training
quick: compare the plain names to choose a tool, the others to judge an engine.

Each tool gets what makes it fast here. timm: BF16 where the processor has it (as torchstone), channels-last, workers.
Ultralytics computes in float32 on a CPU, prepares images in the training process and takes one core less than there
are; it gets decoded images in memory, no plots, and a ``sitecustomize`` that lets it have all cores. Nothing of it is
imported or copied here: it runs as a program of its own, offline, with its analytics off.

The environments of the peers are their own, but see the packages of this one (a .pth file), so that all have the same
torch. timm's script is no part of its wheel: take train.py from github.com/huggingface/pytorch-image-models, at the tag
of the version below.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torchvision
from torch import nn

from conditions import conditions
from torchstone.core import machine, tables
from torchstone.core.errors import ArtifactError
from torchstone.core.values import Part
from torchstone.stages.read import prepare
from torchstone.train import device, recipes
from torchstone.train.recipe import Recipe

REQUIREMENTS = {"timm": "timm==1.0.31", "ultralytics": "ultralytics==8.4.190"}
OURS = "torchstone"
TOOLS = (OURS, "timm", "timm-ours", "ultralytics", "ultralytics-ours")
RECIPE = Path(__file__).parents[1] / "examples" / "recipes" / "cifar10.toml"
SCRIPT = f"https://github.com/huggingface/pytorch-image-models/blob/v{REQUIREMENTS['timm'].partition('==')[2]}/train.py"
LOGS = {
    "timm": ("run/summary.csv", "eval_top1", 1.0),
    "ultralytics": ("run/results.csv", "metrics/accuracy_top1", 100.0),
}
"""Where a peer notes its epochs, in which column, and by what that is multiplied to be per cent."""
SWITCHES = (
    "sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb", "vscode_msg", "openvino_msg",
)  # fmt: skip
"""Ultralytics' settings that are turned off: they call home, or hand the training to whatever is installed."""
ALL_CORES = """import os

if cores := int(os.environ.get("CORES_TO_USE", "0")):
    os.cpu_count = lambda: cores + 1  # of which Ultralytics leaves one alone
"""
SPELT = {"sgd": "SGD", "adamw": "AdamW", "radam": "RAdam"}
"""Optimisers, as Ultralytics spells them."""
CROP = 0.75
"""Least area of the crops that stand in for torchstone's shifts where a tool crops and enlarges."""
TICK = 0.25
"""Seconds between two looks at a log."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all of them train, and from where."""

    model: str
    size: int
    epochs: int
    recipe: str
    workers: int
    script: Path | None
    flags: dict[str, list[str]]
    """More flags, by the peer's name."""
    pythons: dict[str, Path]

    @property
    def options(self) -> Recipe:
        return recipes.by_name(self.recipe)

    @property
    def warmup(self) -> float:
        """Epochs."""
        return round(self.options.warmup * self.epochs, 2)


@dataclass(frozen=True)
class Turn:
    """A block: its seed and images."""

    seed: int
    own: Path
    peers: Path
    classes: int


@dataclass(frozen=True)
class Trained:
    """One run: for each epoch its end (seconds after the start) and its top-1 on val; the command's time."""

    ends: list[float]
    scores: list[float]
    seconds: float
    busy: float
    """Seconds of processors."""

    def reached(self, accuracy: float) -> float | None:
        """Seconds to the first epoch with that top-1."""
        return next((end for end, score in zip(self.ends, self.scores, strict=True) if score >= accuracy), None)

    def best_within(self, seconds: float) -> float | None:
        """The best top-1 of the epochs that were over by then."""
        return max((score for end, score in zip(self.ends, self.scores, strict=True) if end <= seconds), default=None)

    @property
    def pace(self) -> float:
        """Median seconds from one epoch's end to the next."""
        return statistics.median(
            [end - start for start, end in zip(self.ends, self.ends[1:], strict=False)] or self.ends
        )


def export(data: str, place: Path) -> Path:
    """A folder of links to the train and val parts of ``data``. torchstone takes val for val where there is a test part
    besides: the calibration images are that."""
    folders: dict[Part, str] = {"train": "train", "val": "val", "calib": "test"}
    link(data, 0, place / "first", {part: place / "own" / folder for part, folder in folders.items()})
    return place / "own"


def without_calibration(own: Path, seed: int, place: Path) -> tuple[Path, dict[Part, int], int]:
    """The same folder for the peers, without the images that torchstone puts aside for calibration before it trains;
    the images of each part, and the classes."""
    folders: dict[Part, Path] = {"train": place / "peers" / "train", "val": place / "peers" / "val"}
    return place / "peers", *link(str(own), seed, place / "second", folders)


def link(data: str, seed: int, place: Path, folders: dict[Part, Path]) -> tuple[dict[Part, int], int]:
    """Split ``data`` as ``torchstone train`` does, and link the files of these parts as ``folder/class/number``; the
    images of each part, and the classes."""
    catalog, split = prepare(data, place, seed=seed, test_fraction=0.2, by="quota")
    if catalog.reader != "folder":
        raise SystemExit(f"error: '{data}' is no folder of image files, which is all that the peers read")
    (table, _), (parts, _) = tables.read(catalog.table), tables.read(split.table)
    part_of = dict(parts.select("item", "part").iter_rows())
    counts = dict.fromkeys(folders, 0)
    for number, (item, path, label) in enumerate(table.select("item", "path", "label").iter_rows()):
        if (part := part_of[item]) in folders:
            name = folders[part] / catalog.classes[label] / f"{number:06}{Path(path).suffix.lower()}"
            name.parent.mkdir(parents=True, exist_ok=True)
            name.symlink_to((Path(catalog.root) / path).resolve())
            counts[part] += 1
    return counts, len(catalog.classes)


def environment(peer: str, place: Path) -> Path:
    """The Python of an environment with that peer and the packages of this one, made on the first call."""
    root = place / f"train-{peer}"
    python, stamp = root / "bin" / "python", root / "requirements.json"
    wanted = json.dumps([REQUIREMENTS[peer], sys.prefix, ALL_CORES])
    if not stamp.exists() or stamp.read_text() != wanted:
        venv.create(root, with_pip=True, clear=True)
        site = root / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", REQUIREMENTS[peer]], check=True)
        if peer == "ultralytics":
            (site / "sitecustomize.py").write_text(ALL_CORES)
            off = [f"{name}=False" for name in SWITCHES]
            subprocess.run(
                [root / "bin" / "yolo", "settings", *off], check=True, env=surroundings(root), capture_output=True
            )
        stamp.write_text(wanted)
    return python


def surroundings(root: Path) -> dict[str, str]:
    """The environment variables of every tool; ``root`` keeps what Ultralytics would write into the home directory."""
    cores = str(machine.usable_cores())
    own = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": cores, "CORES_TO_USE": cores, "PYTHONUNBUFFERED": "1"}
    offline = {"YOLO_CONFIG_DIR": str(root), "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **own, **offline}


def command(tool: str, plan: Plan, turn: Turn, folder: Path) -> list[str]:
    """What is typed for this tool; it writes below ``folder``."""
    if tool == OURS:
        return [
            sys.executable, "-m", "torchstone", "train", str(turn.own), "--model", plan.model,
            "--image-size", str(plan.size), "--recipe", plan.recipe, "--epochs", str(plan.epochs),
            "--patience", str(plan.epochs), "--device", "cpu", "--seed", str(turn.seed),
            "--runs", str(folder), "--name", "run",
        ]  # fmt: skip
    peer, _, ours = tool.partition("-")
    typed = with_timm if peer == "timm" else with_ultralytics
    return [*typed(plan, turn, folder, bool(ours)), *plan.flags[peer]]


def with_timm(plan: Plan, turn: Turn, folder: Path, ours: bool) -> list[str]:
    recipe = plan.options
    fast = ["--channels-last", "--workers", str(plan.workers), "--log-interval", "1000", "--checkpoint-hist", "2"]
    if device.arithmetic(recipe.precision)[1] == "bf16":
        fast += ["--amp", "--amp-dtype", "bfloat16"]
    usual = ["--warmup-epochs", "1"]
    like_us = [
        "--opt", recipe.optimiser, "--lr", str(recipe.lr), "--momentum", str(recipe.momentum),
        "--weight-decay", str(recipe.weight_decay), "--sched", "cosine", "--sched-on-updates",
        "--warmup-epochs", str(round(plan.warmup)), "--smoothing", str(recipe.label_smoothing),
        "--scale", str(CROP), "1", "--ratio", "1", "1", "--color-jitter", "0", "--train-interpolation", "bilinear",
    ]  # fmt: skip
    if recipe.clip:
        like_us += ["--clip-grad", str(recipe.clip)]
    if recipe.ema:
        like_us += ["--model-ema", "--model-ema-decay", str(recipe.ema), "--model-ema-warmup"]
    return [
        str(plan.pythons["timm"]), str(plan.script), "--data-dir", str(turn.peers), "--val-split", "val",
        "--model", plan.model, "--num-classes", str(turn.classes), "--img-size", str(plan.size), "--crop-pct", "1.0",
        "--epochs", str(plan.epochs), "--batch-size", str(recipe.batch), "--device", "cpu", "--seed", str(turn.seed),
        "--output", str(folder), "--experiment", "run", *fast, *(like_us if ours else usual),
    ]  # fmt: skip


def with_ultralytics(plan: Plan, turn: Turn, folder: Path, ours: bool) -> list[str]:
    recipe = plan.options
    network = folder / "network.yaml"
    network.write_text(description(plan.model, turn.classes))
    fast = ["device=cpu", "amp=False", "cache=ram", "plots=False", "deterministic=False"]
    like_us = [
        f"optimizer={SPELT[recipe.optimiser]}", f"lr0={recipe.lr}", "lrf=0.0", f"momentum={recipe.momentum}",
        f"nbs={recipe.batch}", f"weight_decay={recipe.weight_decay}", "cos_lr=True", f"warmup_epochs={plan.warmup}",
        f"warmup_momentum={recipe.momentum}", "warmup_bias_lr=0.0",
        f"scale={1 - CROP}", "auto_augment=None", "erasing=0.0", "hsv_h=0.0", "hsv_s=0.0", "hsv_v=0.0",
    ]  # fmt: skip
    return [
        str(plan.pythons["ultralytics"].with_name("yolo")), "classify", "train", f"model={network}",
        f"data={turn.peers}", f"imgsz={plan.size}", f"epochs={plan.epochs}", f"patience={plan.epochs}",
        f"batch={recipe.batch}", f"seed={turn.seed}", f"project={folder}", "name=run", *fast,
        *(like_us if ours else []),
    ]  # fmt: skip


def description(model: str, classes: int) -> str:
    """The network for Ultralytics, layer by layer torchvision's. What it makes of such a network by itself has another
    head, of more parameters."""
    head = dict(torchvision.models.get_model(model, weights=None).named_children()).get("fc")
    if not isinstance(head, nn.Linear):
        raise SystemExit(f"error: --model {model} is no ResNet of torchvision's")
    features = head.in_features
    return (
        f"nc: {classes}\n"
        f"backbone:\n  - [-1, 1, TorchVision, [{features}, {model}, null, True, 1]]\n"
        f"head:\n  - [-1, 1, nn.Flatten, []]\n  - [-1, 1, nn.Linear, [{features}, nc]]\n"
    )


def noted(tool: str, folder: Path) -> list[float]:
    """Top-1 on val (per cent) of the epochs that the tool has noted so far."""
    if tool == OURS:
        for path in sorted((folder / "run" / "artifacts").glob("**/history.parquet")):
            try:
                return tables.read(path)[0]["val_top1"].to_list()
            except ArtifactError:  # it is being moved
                continue
        return []
    name, column, factor = LOGS[tool.partition("-")[0]]
    path = folder / name
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""  # the last line may be half written
    return [factor * float(row[column]) for row in csv.DictReader(whole.splitlines())]


def timed(tool: str, plan: Plan, turn: Turn, folder: Path) -> Trained:
    """Train, and look at the log all the while."""
    folder.mkdir(parents=True)
    for path in turn.peers.glob("*.cache"):
        path.unlink()  # Ultralytics' list of the images, from an earlier run
    typed = command(tool, plan, turn, folder)
    root = plan.pythons.get("ultralytics", folder / "bin" / "python").parents[1]
    ends: list[float] = []
    with (folder / "output.txt").open("wb") as output:
        begin, busy = time.perf_counter(), processors()
        process = subprocess.Popen(typed, cwd=folder, env=surroundings(root), stdout=output, stderr=subprocess.STDOUT)
        try:
            for seconds in ticks(process, begin):
                ends += [seconds] * (len(noted(tool, folder)) - len(ends))
        finally:
            if process.poll() is None:
                process.kill()
        seconds = time.perf_counter() - begin
    scores = noted(tool, folder)
    if process.returncode or len(scores) != plan.epochs:
        said = (folder / "output.txt").read_text(errors="replace")[-3000:]
        raise SystemExit(
            f"{said}\nerror: {shlex.join(typed)}\nended with {process.returncode} after {len(scores)} epochs"
        )
    return Trained(ends, scores, seconds, processors() - busy)


def ticks(process: subprocess.Popen[bytes], begin: float) -> Iterator[float]:
    """Seconds since ``begin``, again and again until the process is over, and once after that."""
    over = False
    while not over:
        over = process.poll() is not None
        yield time.perf_counter() - begin
        time.sleep(0 if over else TICK)


def processors() -> float:
    """Seconds that the processors have worked for children of this process."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def told(found: float | None, unit: str, digits: int = 0) -> str:
    return "never" if found is None else f"{found:.{digits}f} {unit}"


def median(found: list[float | None]) -> float | None:
    """Of all blocks, where none fell short."""
    there = [value for value in found if value is not None]
    return statistics.median(there) if len(there) == len(found) else None


def show(name: str, cells: list[str]) -> None:
    print(f"{name:24}" + "".join(f"{cell:>18}" for cell in cells))


def summarise(runs: dict[str, list[Trained]], accuracy: float) -> None:
    """One column a tool, medians over the blocks."""
    reached = {tool: [run.reached(accuracy) for run in found] for tool, found in runs.items()}
    show("", list(runs))
    show(f"to {accuracy:g} %", [told(median(found), "s") for found in reached.values()])
    if OURS in runs:
        ratios = {
            tool: [
                theirs / mine if theirs and mine else None for mine, theirs in zip(reached[OURS], found, strict=True)
            ]
            for tool, found in reached.items()
        }
        show(
            "torchstone is",
            ["-" if (ratio := median(found)) is None else f"{ratio:.2f} x" for found in ratios.values()],
        )
    limits = []  # of each block: when the quickest was there, or over if none came so far
    for block in range(len(next(iter(runs.values())))):
        there = [seconds for found in reached.values() if (seconds := found[block]) is not None]
        limits.append(min(there or [found[block].seconds for found in runs.values()]))
    within = {
        tool: [run.best_within(limit) for run, limit in zip(found, limits, strict=True)] for tool, found in runs.items()
    }
    show(f"best within {statistics.median(limits):.0f} s", [told(median(found), "%", 2) for found in within.values()])
    show(
        "best of all epochs",
        [f"{statistics.median(max(run.scores) for run in found):.2f} %" for found in runs.values()],
    )
    show("first epoch's end", [f"{statistics.median(run.ends[0] for run in found):.1f} s" for found in runs.values()])
    show("each further epoch", [f"{statistics.median(run.pace for run in found):.1f} s" for found in runs.values()])
    show("whole command", [f"{statistics.median(run.seconds for run in found):.0f} s" for found in runs.values()])
    show("of processors", [f"{statistics.median(run.busy for run in found):.0f} s" for found in runs.values()])


def explain(plan: Plan, tools: list[str]) -> None:
    """What each tool does."""
    precision = device.arithmetic(plan.options.precision)[1]
    print(f"{conditions()}; {machine.usable_cores()} threads each")
    print(
        f"{plan.model} at {plan.size} pixels from fresh weights, {plan.epochs} epochs, batches of {plan.options.batch}"
    )
    if OURS in tools:
        print(f"torchstone: {precision}, as many workers as it sees fit; {Path(plan.recipe).name}")
    if plan.script:
        digest = hashlib.sha256(plan.script.read_bytes()).hexdigest()[:12]
        print(f"{REQUIREMENTS['timm']} (train.py {digest}): {precision}, channels last, {plan.workers} workers")
    print(f"{REQUIREMENTS['ultralytics']}: f32, no workers, images decoded in memory")
    for peer, flags in plan.flags.items():
        if flags:
            print(f"{peer} besides: {shlex.join(flags)}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a folder of class folders")
    parser.add_argument("--timm-script", type=Path, help=f"{SCRIPT}; without it timm is left out")
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=TOOLS)
    parser.add_argument("--accuracy", type=float, default=80.0, help="top-1 on val, per cent")
    parser.add_argument("--epochs", type=int, help="by default as the recipe says")
    parser.add_argument("--model", default="resnet18", help="a ResNet that timm and torchvision have under one name")
    parser.add_argument("--size", type=int, default=32, choices=(32, 64), help="pixels a side")
    parser.add_argument("--recipe", default=str(RECIPE), help="torchstone's, a name or a TOML file")
    parser.add_argument("--workers", type=int, default=machine.usable_cores(), help="of timm's loader")
    parser.add_argument("--blocks", type=int, default=1, help="runs of each, in alternated order")
    parser.add_argument("--envs", type=Path, default=Path(tempfile.gettempdir()) / "torchstone-peers")
    parser.add_argument("--timm-flags", default="", help='more of them, such as "--torchcompile"')
    parser.add_argument("--ultralytics-flags", default="", help='more of them, such as "compile=True"')
    options = parser.parse_args()
    if options.timm_script is None and any(tool.startswith("timm") for tool in options.tools):
        print(f"timm is left out: --timm-script names its train.py, which its wheel lacks and which is at\n  {SCRIPT}")
        options.tools = [tool for tool in options.tools if not tool.startswith("timm")]
    return options


def main() -> None:
    options = parsed()
    device.use("cpu")
    plan = Plan(
        model=options.model,
        size=options.size,
        epochs=options.epochs or recipes.by_name(options.recipe).epochs,
        recipe=str(Path(options.recipe).resolve()) if Path(options.recipe).exists() else options.recipe,
        workers=options.workers,
        script=options.timm_script and options.timm_script.resolve(strict=True),
        flags={"timm": shlex.split(options.timm_flags), "ultralytics": shlex.split(options.ultralytics_flags)},
        pythons={
            peer: environment(peer, options.envs.resolve())
            for peer in REQUIREMENTS
            if any(tool.startswith(peer) for tool in options.tools)
        },
    )
    explain(plan, options.tools)
    runs: dict[str, list[Trained]] = {tool: [] for tool in options.tools}
    with tempfile.TemporaryDirectory() as scratch:
        own = export(options.data, Path(scratch))
        for block in range(options.blocks):
            place = Path(scratch) / f"block-{block}"
            peers, counts, classes = without_calibration(own, block, place)
            for path in own.rglob("*"):
                if path.is_file():
                    path.read_bytes()  # nobody is the first to touch the disk
            print(f"block {block + 1}: {counts['train']:,} images of {classes} classes, and {counts['val']:,} of val")
            for tool in options.tools[:: 1 if block % 2 == 0 else -1]:
                run = timed(tool, plan, Turn(block, own, peers, classes), place / tool)
                runs[tool].append(run)
                curve = "  ".join(f"{end:.0f} s {score:.2f}" for end, score in zip(run.ends, run.scores, strict=True))
                print(f"{tool} (load {os.getloadavg()[0]:.1f}): {curve}; over after {run.seconds:.0f} s", flush=True)
    summarise(runs, options.accuracy)


if __name__ == "__main__":
    main()
