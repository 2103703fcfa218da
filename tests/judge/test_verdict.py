"""The verdict as a user gets it: stored evidence in, rows, decisions, winner and sentence out."""

import subprocess
import sys

import pytest
from stored_run import World, write_catalog

from torchstone.core.errors import ArtifactError
from torchstone.core.values import METRICS, Budget, Metric
from torchstone.core.verdict import CandidateVerdict, Verdict
from torchstone.judge import select
from torchstone.judge.verdict import judge, next_to_test


def judged(world: World, budget: Budget, look: int = 1, quartets: int = 16, **session) -> Verdict:
    """What the pipeline does: shortlist, one judged session, then predict and judge until the look is over."""
    shortlist = select.shortlist(world.run, world.candidates, budget)
    if quartets:
        world.judged(shortlist, quartets, **session)
    verdict = judge(world.run, world.candidates, shortlist, budget, look)
    while (candidate_id := next_to_test(verdict)) is not None:
        world.predict(world.candidate(candidate_id), "test")
        verdict = judge(world.run, world.candidates, shortlist, budget, look)
    return verdict


def row(verdict: Verdict, name: str) -> CandidateVerdict:
    return next(row for row in verdict.rows if row.name == name)


def small(world: World, lost: int, gained: int = 0, ms: float = 1.0) -> World:
    """Baseline, a free export, and one compression that loses so many of 800 test images."""
    world.add("torch", ms=4.0, runtime="torch")
    world.add("onnx", ms=2.0, free=True)
    world.add("int8", ms=ms, lost=(1, lost), gained=(0, gained), kilobytes=49)
    world.time("screening", 6)
    return world


def test_the_fastest_that_passes_wins_with_its_bounds(ladder: World) -> None:
    verdict = judged(ladder, Budget(max_drop=1.0, min_speedup=3.0, max_latency_ms=1.0, max_size_mb=0.5))
    assert [row.outcome for row in verdict.rows] == [
        "baseline", "not tested", "not tested", "pass", "not tested", "pass", "not tested",
    ]  # fmt: skip
    won = row(verdict, "int8@openvino")
    assert (verdict.winner, verdict.outcome, verdict.worth_compressing) == (won.candidate_id, "pass", True)
    assert verdict.level == 0.975
    assert [decision.criterion for decision in won.decisions] == ["drop", "speedup", "latency", "size"]
    assert won.accuracy is not None
    assert (won.accuracy.part, won.accuracy.lost, won.accuracy.gained) == ("test", 3, 2)
    assert won.accuracy.drop_upper <= 1.0
    assert won.speed is not None
    assert won.speed.lower is not None
    assert 7.8 < won.speed.lower <= won.speed.ratio < 8.2
    assert won.same_runtime is not None
    assert won.same_runtime.rival == "onnx@openvino"
    assert won.free_rival is not None
    assert won.free_rival.rival == "bf16@openvino"
    assert won.throughput == pytest.approx(3200)
    assert verdict.sentence.startswith("Ship 'int8@openvino': loses at most ")
    assert "800 test images, 97.5 % confidence" in verdict.sentence


def test_the_same_runtime_is_compared_where_the_session_did_so(ladder: World) -> None:
    shortlist = select.named(ladder.candidates, [ladder.candidates[5].id])
    ladder.judged(shortlist)
    for number in (0, 5):
        ladder.predict(ladder.candidates[number], "test")
    found = judge(ladder.run, ladder.candidates, shortlist, Budget(), 1).rows[5].same_runtime
    assert found is not None
    assert found.ratio == pytest.approx(2.4, rel=0.02)


def test_the_first_that_does_not_pass_ends_the_look(ladder: World) -> None:
    shortlist = select.named(ladder.candidates, [ladder.candidates[number].id for number in (2, 6, 5)])
    ladder.time("judged", 16)
    for candidate in ladder.candidates:
        ladder.predict(candidate, "test")  # even if they are there, they are not looked at
    verdict = judge(ladder.run, ladder.candidates, shortlist, Budget(max_drop=1.0), 1)
    outcomes = [row.outcome for row in verdict.rows]
    assert outcomes == ["baseline", "not tested", "pass", "not tested", "not tested", "not tested", "fail"]
    stopped = verdict.rows[5]
    assert "'prune=0.7+int8@openvino' came first and did not pass" in stopped.reason
    assert stopped.accuracy is not None
    assert stopped.accuracy.part == "val"
    assert next_to_test(verdict) is None
    assert verdict.winner == ladder.candidates[2].id
    assert not any("int8-openvino" in name and name.endswith("predictions-test.parquet") and "prune" not in name
                   for name in verdict.evidence)  # fmt: skip


def test_test_predictions_are_asked_for_one_at_a_time_the_baseline_first(ladder: World) -> None:
    budget = Budget(max_drop=1.0)
    shortlist = select.shortlist(ladder.run, ladder.candidates, budget)
    ladder.time("judged", 16)
    asked = []
    verdict = judge(ladder.run, ladder.candidates, shortlist, budget, 1)
    assert verdict.sentence == "Nothing has met the test set yet."
    while (candidate_id := next_to_test(verdict)) is not None:
        asked.append(candidate_id)
        ladder.predict(ladder.candidate(candidate_id), "test")
        verdict = judge(ladder.run, ladder.candidates, shortlist, budget, 1)
    assert asked == [ladder.candidates[0].id, *shortlist.order]


@pytest.mark.parametrize(
    ("lost", "gained", "outcome", "said"),
    [(2, 0, "pass", "at most"), (6, 1, "undecided", "more test images"), (8, 1, "undecided", "no reasonable number"),
     (30, 0, "fail", "at least"),
     (9, 0, "undecided", "no reasonable number of images helps if it really loses 1.12")],
)  # fmt: skip
def test_a_drop_is_decided_by_its_bounds(world: World, lost: int, gained: int, outcome: str, said: str) -> None:
    verdict = judged(small(world, lost, gained), Budget(max_drop=1.0))
    found = row(verdict, "int8")
    assert found.outcome == outcome
    assert said in found.reason
    assert (found.images_needed is not None) == ("more test images" in found.reason)


def test_the_images_still_needed_would_probably_decide_it(world: World) -> None:
    found = row(judged(small(world, 6, 2), Budget(max_drop=1.0)), "int8")
    assert found.outcome == "undecided"
    # 1 % disagreement, 0.5 points lost: 0.01 * (1.96 + 0.84)² / 0.005² = 3140 in all
    assert found.images_needed == 3140 - 800
    assert found.reason.endswith("about 2,340 more test images would probably decide it")


def test_a_later_look_needs_a_stronger_answer(world: World) -> None:
    small(world, 3)
    first, third = (row(judged(world, Budget(max_drop=1.2), look), "int8").accuracy for look in (1, 4))
    assert first is not None
    assert third is not None
    assert first.drop_upper < 1.2 < third.drop_upper


def test_an_unsteady_clock_touches_speed_and_latency_alone(world: World) -> None:
    small(world, 1)
    noisy = judged(world, Budget(max_drop=1.0, min_speedup=1.5), noise=0.25)
    assert noisy.control is not None
    assert noisy.control.outcome == "undecided"
    first = noisy.rows[1]
    assert [decision.outcome for decision in first.decisions] == ["pass", "undecided"]
    assert (first.outcome, noisy.outcome, noisy.winner) == ("undecided", "undecided", None)

    void = judged(world, Budget(max_drop=1.0, min_speedup=1.5, max_latency_ms=5, max_size_mb=1), second_process=1.1)
    assert [decision.outcome for decision in void.rows[1].decisions] == ["pass", "void", "void", "pass"]
    assert (void.outcome, void.winner) == ("void", None)
    assert "the clock of this session cannot be trusted" in void.sentence
    assert void.rows[1].speed is not None
    assert (void.rows[1].speed.ratio, void.rows[1].speed.lower) == (pytest.approx(2.0, rel=0.02), None)

    accuracy_alone = judged(world, Budget(max_drop=1.0), second_process=1.1)
    assert accuracy_alone.outcome == "pass"
    assert accuracy_alone.worth_compressing is None
    assert "the clock cannot tell" in accuracy_alone.sentence
    assert "×" not in accuracy_alone.sentence


def test_by_a_clock_that_cannot_be_trusted_the_safest_of_the_fast_ones_is_shipped(world: World) -> None:
    """What is as fast within the noise of the session is no reason to take the greater risk."""
    world.add("torch", ms=4.0, runtime="torch")
    world.add("safe", ms=1.02, lost=(0, 1))
    world.add("bold", ms=1.0, lost=(0, 3))
    world.time("screening", 6)
    noisy = judged(world, Budget(max_drop=2.0), noise=0.25)
    assert noisy.control is not None
    assert noisy.control.outcome == "undecided"
    assert [row.outcome for row in noisy.rows[1:]] == ["pass", "pass"]
    assert noisy.row(noisy.winner or "").name == "safe"


def test_times_from_a_session_without_its_own_control_decide_nothing(world: World) -> None:
    small(world, 1)
    world.time("judged", 16, session="first")
    table = world.run.timings(world.candidates[0]).read_bytes()
    world.time("judged", 16, session="second")
    world.run.timings(world.candidates[0]).write_bytes(table)
    verdict = judged(world, Budget(max_drop=1.0, min_speedup=1.5), quartets=0)
    assert verdict.rows[1].outcome == "void"
    assert "no A/A control" in verdict.rows[1].reason


def test_without_judged_timings_a_wish_for_speed_is_undecided(world: World) -> None:
    verdict = judged(small(world, 1), Budget(max_drop=1.0, min_speedup=1.5), quartets=0)
    assert verdict.rows[1].decisions[1].outcome == "undecided"
    assert verdict.control is None


def test_a_free_rival_as_fast_makes_compression_not_worth_it(world: World) -> None:
    small(world, 0, ms=1.95)
    world.models[world.candidates[2].id].ms = 2.0  # what screening promised, the judged session does not keep
    verdict = judged(world, Budget(max_drop=1.0))
    assert [row.outcome for row in verdict.rows] == ["baseline", "pass", "pass"]
    assert (verdict.winner, verdict.worth_compressing) == (verdict.rows[1].candidate_id, False)
    assert verdict.sentence.startswith("Not worth compressing, take the weights as they are in 'onnx'")


def test_an_undecided_compression_leaves_open_whether_it_is_worth_it(world: World) -> None:
    verdict = judged(small(world, 8, 1), Budget(max_drop=1.0))
    assert (verdict.winner, verdict.worth_compressing) == (verdict.rows[1].candidate_id, None)
    assert verdict.sentence.startswith("Ship 'onnx'")
    assert "Open: 'int8' loses 0.88 points" in verdict.sentence


def test_a_candidate_judged_against_itself_is_equal_and_never_faster(world: World) -> None:
    world.add("torch", ms=4.0, runtime="torch")
    world.add("torch again", ms=4.0, runtime="torch")
    budget = Budget(max_drop=1.0, min_speedup=1.05)
    order = [world.candidates[1].id]
    for candidate in world.candidates:
        world.predict(candidate, "test")
    for session in range(20):
        world.time("judged", 16, noise=0.02, session=str(session))
        verdict = judge(world.run, world.candidates, select.named(world.candidates, order), budget, 1)
        found = verdict.rows[1]
        assert found.accuracy is not None
        assert found.accuracy.drop == 0
        assert found.outcome != "pass"


def look_at(world: World, names: list[str], budget: Budget, columns: tuple[str, ...] = (), **named) -> Verdict:
    """What ``torchstone judge`` does without the timings: these candidates in this order."""
    order = [next(one.id for one in world.candidates if one.name == name) for name in names]
    shortlist = select.named(world.candidates, order, **named)
    verdict = judge(world.run, world.candidates, shortlist, budget, 1, columns)
    while (candidate_id := next_to_test(verdict)) is not None:
        world.predict(world.candidate(candidate_id), "test")
        verdict = judge(world.run, world.candidates, shortlist, budget, 1, columns)
    return verdict


def test_an_unordered_set_meets_the_test_set_whole_at_levels_split_by_holm(world: World) -> None:
    world.add("torch", ms=4.0, runtime="torch")
    for name, lost in (("bad", 60), ("near", 2), ("sure", 0)):
        world.add(name, ms=1.0, lost=(0, lost))
    budget = Budget(max_drop=1.1)
    verdict = look_at(world, ["bad", "near", "sure"], budget, procedure="holm")
    assert [row.outcome for row in verdict.rows] == ["baseline", "fail", "pass", "pass"]
    # the first round tests three at 2.5 % / 3, which 'near' does not pass; the second two, the third one
    assert [row.level for row in verdict.rows[1:]] == pytest.approx([0.975, 1 - 0.025 / 2, 1 - 0.025 / 3])
    assert verdict.procedure == "holm"
    assert "98.75 % confidence" in verdict.sentence or "99.1667 % confidence" in verdict.sentence
    assert [row.outcome for row in look_at(world, ["bad", "near", "sure"], budget).rows[1:]] == [
        "fail", "not tested", "not tested",
    ]  # fmt: skip


def test_the_margin_can_be_about_another_metric(world: World) -> None:
    small(world, 6, 2)
    row_of: dict[Metric, CandidateVerdict] = {
        name: row(look_at(world, ["int8"], Budget(max_drop=1.5, metric=name)), "int8") for name in METRICS
    }
    for name, found in row_of.items():
        assert [one.name for one in found.metrics] == list(METRICS)
        one = next(one for one in found.metrics if one.name == name)
        assert one.upper is not None
        assert found.outcome == ("pass" if one.upper <= 1.5 else "undecided")
        assert (METRICS[name] in found.reason) == (name != "top1")
    assert row_of["macro_f1"].outcome == "pass"
    assert row_of["macro_f1"].metrics == row_of["ece"].metrics  # whatever decides, all are reported
    assert row_of["macro_f1"].accuracy == row_of["ece"].accuracy
    verdict = look_at(world, ["int8"], Budget(max_drop=1.5, metric="macro_f1"))
    assert " points of macro F1 (0.5" in verdict.sentence

    undecided = row(look_at(world, ["int8"], Budget(max_drop=1.2, metric="macro_f1")), "int8")
    assert undecided.outcome == "undecided"
    assert undecided.images_needed is not None
    assert f"about {undecided.images_needed:,} more test images" in undecided.reason

    world.add("worse", ms=1.0, lost=(0, 80))
    failed = row(look_at(world, ["worse"], Budget(max_drop=1.0, metric="macro_f1")), "worse")
    assert failed.outcome == "fail"
    assert "at least" in failed.reason


def test_val_orders_by_the_metric_that_is_judged(ladder: World) -> None:
    chosen = select.shortlist(ladder.run, ladder.candidates, Budget(max_drop=1.0, metric="macro_f1"))
    assert chosen.order
    assert "points of macro F1 on val" in chosen.left_out[ladder.candidates[6].id]


def test_untested_rows_report_the_metrics_of_val_and_claim_nothing(ladder: World) -> None:
    verdict = judged(ladder, Budget(max_drop=1.0))
    for found in verdict.rows:
        tested = found.outcome not in ("baseline", "not tested")
        assert [one.name for one in found.metrics] == list(METRICS)
        assert all((one.upper is not None) == tested for one in found.metrics)
        assert bool(found.slices) == tested


def test_images_of_one_group_are_no_more_witnesses_than_they_are(world: World) -> None:
    small(world, 5)
    budget = Budget(max_drop=1.5)
    alone = row(look_at(world, ["int8"], budget), "int8")
    write_catalog(world.run, groups=8)
    together = row(look_at(world, ["int8"], budget), "int8")
    assert alone.accuracy is not None
    assert together.accuracy is not None
    assert (alone.accuracy.groups, alone.accuracy.design_effect) == (None, 1.0)
    assert together.accuracy.groups == 100
    assert 2 < together.accuracy.design_effect < 8  # the five images lost are of one patient
    assert together.accuracy.drop_upper > alone.accuracy.drop_upper
    assert (alone.outcome, together.outcome) == ("pass", "undecided")
    count = 800 / together.accuracy.design_effect
    assert f"800 images in 100 groups count as {count:.0f}" in together.reason
    assert together.metrics[1].upper != alone.metrics[1].upper


def test_slices_say_where_a_candidate_loses(world: World) -> None:
    small(world, 9)
    verdict = look_at(world, ["int8"], Budget(max_drop=3.0), ("format", "width"))
    found = row(verdict, "int8").slices
    assert verdict.slices == ("format", "width")
    assert list(dict.fromkeys(one.column for one in found)) == ["class", "format", "width"]
    for column, parts in (("class", 10), ("format", 1), ("width", 4)):
        of_column = [one for one in found if one.column == column]
        assert len(of_column) == parts  # fewer than 20 images are png
        assert {one.level for one in of_column} == {1 - 0.025 / parts}
        assert [one.drop for one in of_column] == sorted((one.drop for one in of_column), reverse=True)
    assert sum(one.lost for one in found if one.column == "class") == 9


@pytest.mark.parametrize(("lost", "proof"), [(1, "proven"), (7, "open"), (60, "refuted")])
def test_mlperfs_rule_is_answered_from_the_same_bounds(world: World, lost: int, proof: str) -> None:
    found = row(look_at(small(world, lost), ["int8"], Budget(max_drop=5.0)), "int8").accuracy
    assert found is not None
    assert found.baseline_top1 == 94.0
    assert found.keeps_99 == proof
    assert (found.drop_upper <= 0.94, found.drop_lower > 0.94) == (proof == "proven", proof == "refuted")


def test_an_empty_shortlist_leaves_the_test_set_untouched(ladder: World) -> None:
    verdict = judged(ladder, Budget(max_drop=1.0, min_speedup=100), quartets=0)
    assert verdict.outcome == "fail"
    assert "the test set was not touched" in verdict.sentence
    assert not any(ladder.run.root.rglob("predictions-test.parquet"))
    assert all(row.reason for row in verdict.rows)
    first = verdict.rows[0].latency
    assert first is not None  # as the others' rival in the screening session
    assert (first.median_ms, first.lower_ms) == (pytest.approx(4.0, rel=0.01), None)


def test_every_file_that_a_number_comes_from_is_among_the_evidence(ladder: World) -> None:
    verdict = judged(ladder, Budget(max_drop=1.0))
    there = {path.relative_to(ladder.run.root).as_posix() for path in ladder.run.root.rglob("*.parquet")}
    models = {f"artifacts/{candidate.artifact.key}/artifact.json" for candidate in ladder.candidates}
    assert set(verdict.evidence) == there - {"data/split.parquet"} | models | {"data/split.json"}


def test_a_verdict_survives_its_round_trip(ladder: World) -> None:
    verdict = judged(ladder, Budget(max_drop=1.0))
    verdict.save(ladder.run.verdict)
    assert Verdict.load(ladder.run.verdict) == verdict


def test_the_answers_of_another_candidate_are_refused(ladder: World) -> None:
    one, other = (ladder.run.predictions(ladder.candidates[number], "val") for number in (1, 2))
    one.write_bytes(other.read_bytes())
    with pytest.raises(ArtifactError, match="does not belong to this candidate") as caught:
        select.shortlist(ladder.run, ladder.candidates, Budget())
    assert caught.value.hint


def test_a_shortlist_of_strangers_is_refused(ladder: World) -> None:
    with pytest.raises(ArtifactError, match="no candidate of this run"):
        judge(ladder.run, ladder.candidates, select.Shortlist(order=("nobody",)), Budget(), 1)


def test_the_judge_needs_no_torch(ladder: World) -> None:
    judged(ladder, Budget(max_drop=1.0)).save(ladder.run.verdict)
    program = f"""
import sys
for name in ("torch", "torchvision", "timm", "openvino", "nncf", "onnxruntime", "onnx", "scipy", "sklearn"):
    sys.modules[name] = None
from pathlib import Path
from torchstone.core.run import Run
from torchstone.judge import accuracy, ledger, power, select, speed
from torchstone.judge.verify import verify
mismatches = verify(Run(Path({str(ladder.run.root)!r})))
assert [one.row for one in mismatches] == ["bundle"], mismatches  # none was written here
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("fine\n", "")
