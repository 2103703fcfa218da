"""The shortlist: at most three, from the safest to the boldest, chosen without the test set."""

import pytest
from stored_run import World

from torchstone.core.errors import ArtifactError
from torchstone.core.values import Budget
from torchstone.judge import select
from torchstone.judge.evidence import Evidence


def names(world: World, found: select.Shortlist) -> list[str]:
    return [world.candidate(key).name for key in found.order]


def reasons(world: World, found: select.Shortlist) -> dict[str, str]:
    return {world.candidate(key).name: reason for key, reason in found.left_out.items()}


def test_the_safest_the_free_rival_and_the_fastest_that_can_pass(ladder: World) -> None:
    found = select.shortlist(ladder.run, ladder.candidates, Budget(max_drop=1.0))
    assert names(ladder, found) == ["onnx@openvino", "bf16@openvino", "int8@openvino"]
    assert found.free_rival is not None
    assert ladder.candidate(found.free_rival).name == "bf16@openvino"
    said = reasons(ladder, found)
    assert said["prune=0.7+int8@openvino"] == "loses 15.0 points on val (at least 12.3), 1 allowed"
    assert said["onnx@onnxruntime"].startswith("'onnx@openvino' is as safe on val or safer")
    assert set(said) == {"prune=0.7+int8@openvino", "onnx@onnxruntime", "int8@onnxruntime"}


def test_no_test_prediction_is_read_or_needed(ladder: World) -> None:
    assert not any(ladder.run.root.rglob("predictions-test.parquet"))
    assert select.shortlist(ladder.run, ladder.candidates, Budget(max_drop=1.0)).order


def test_what_is_too_slow_or_too_large_does_not_meet_the_test_set(ladder: World) -> None:
    found = select.shortlist(ladder.run, ladder.candidates, Budget(max_drop=1.0, min_speedup=4.6))
    assert names(ladder, found) == ["int8@openvino"]
    assert "4.6× asked" in reasons(ladder, found)["onnx@openvino"]
    assert found.free_rival is None

    small = select.shortlist(ladder.run, ladder.candidates, Budget(max_drop=1.0, max_size_mb=0.1))
    assert "0.1 MB allowed" in reasons(ladder, small)["bf16@openvino"]
    assert names(ladder, small)[-1] == "int8@openvino"

    quick = select.shortlist(ladder.run, ladder.candidates, Budget(max_drop=1.0, max_latency_ms=0.85))
    assert "0.85 ms allowed" in reasons(ladder, quick)["bf16@openvino"]
    assert names(ladder, quick)[-1] == "int8@openvino"


def test_when_nothing_can_meet_the_budget_the_list_is_empty_and_says_why(ladder: World) -> None:
    found = select.shortlist(ladder.run, ladder.candidates, Budget(max_drop=1.0, min_speedup=100))
    assert found.order == ()
    assert len(found.left_out) == len(ladder.candidates) - 1


def test_noise_on_a_small_val_set_excludes_nobody_where_there_is_room(world: World) -> None:
    world.add("torch", ms=4.0, runtime="torch")
    world.add("onnx", ms=2.0, free=True)
    world.add("int8", ms=1.0, lost=(6, 2))  # 1.5 points of 400 images: at least 0.7 at 95 %
    world.time("screening", 6)
    found = select.shortlist(world.run, world.candidates, Budget(max_drop=1.0))
    assert names(world, found) == ["onnx", "int8"]


def test_a_long_shot_comes_last_however_few_images_it_differs_on(world: World) -> None:
    """Many images that differ bound the drop less closely than few: by its bound alone the long shot would be safer."""
    world.add("torch", ms=4.0, runtime="torch")
    world.add("onnx", ms=2.0, free=True)
    world.add("likely", ms=1.0, lost=(20, 0), gained=(18, 0))
    world.add("bold", ms=0.8, lost=(6, 0))
    world.time("screening", 6)
    found = select.shortlist(world.run, world.candidates, Budget(max_drop=1.0))
    seen = {one.name: row for one, row in select.screen(Evidence(world.run), world.candidates, Budget())}
    assert isinstance(seen["bold"], select.Screened)
    assert isinstance(seen["likely"], select.Screened)
    assert seen["bold"].risk < seen["likely"].risk
    assert names(world, found) == ["onnx", "likely", "bold"]


def test_a_doubtful_drop_takes_no_place_from_those_that_look_well(ladder: World) -> None:
    ladder.add("prune=0.3+int8@openvino", ms=0.4, runtime="openvino", lost=(6, 6))
    ladder.time("screening", 6)
    found = select.shortlist(ladder.run, ladder.candidates, Budget(max_drop=1.0))
    assert names(ladder, found) == ["onnx@openvino", "bf16@openvino", "int8@openvino"]
    assert "loses 1.5 points on val" in reasons(ladder, found)["prune=0.3+int8@openvino"]


def test_what_is_slower_than_the_baseline_is_left_out(world: World) -> None:
    world.add("torch", ms=4.0, runtime="torch")
    world.add("int8", ms=9.0)
    world.add("onnx", ms=3.0, free=True)
    world.time("screening", 6)
    found = select.shortlist(world.run, world.candidates, Budget(max_drop=1.0))
    assert names(world, found) == ["onnx"]
    assert "slower than the baseline" in reasons(world, found)["int8"]


def test_more_than_three_on_the_front(world: World) -> None:
    world.add("torch", ms=8.0, runtime="torch")
    for number, ms in enumerate((6.0, 4.0, 2.0, 1.0, 0.5)):
        world.add(f"step{number}", ms=ms, lost=(number, number))
    world.time("screening", 6)
    found = select.shortlist(world.run, world.candidates, Budget(max_drop=2.0))
    assert names(world, found) == ["step0", "step2", "step4"]
    assert set(reasons(world, found).values()) == {"only 3 may meet the test set, and others promise more"}
    assert found.free_rival is None


def test_a_candidate_without_timings_is_left_out_and_a_baseline_without_answers_is_an_error(world: World) -> None:
    world.add("torch", ms=4.0, runtime="torch")
    world.time("screening", 6)
    late = world.add("int8", ms=1.0)
    found = select.shortlist(world.run, world.candidates, Budget())
    assert found.left_out == {late: "it was not timed"}
    world.run.predictions(world.candidates[0], "val").unlink()
    with pytest.raises(ArtifactError, match="'torch' has no val predictions"):
        select.shortlist(world.run, world.candidates, Budget())


def test_a_noisy_session_rules_out_nothing_of_its_own(world: World) -> None:
    world.add("torch", ms=4.0, runtime="torch")
    slow, budget = world.candidate(world.add("slow", ms=6.0)), Budget(min_speedup=1.5)

    def screened() -> select.Screened:
        [(_, found)] = select.screen(Evidence(world.run), world.candidates, budget)
        assert isinstance(found, select.Screened)
        return found

    world.time("screening", 8, second_process=1.5, session="noisy")
    noisy = world.timings(slow)
    assert "too noisy" in (screened().noise or "") or "came out different" in (screened().noise or "")
    assert select.out_of_reach(screened(), budget) is None
    assert select.out_of_reach(screened(), Budget(max_size_mb=0.001)) is not None, "a size is known without a clock"
    world.time("screening", 8, session="clean")
    assert screened().noise is None
    assert "1.5× asked" in (select.out_of_reach(screened(), budget) or "")
    world.write_timings(slow, noisy)
    world.time("screening", 8, second_process=1.5, session="later")
    world.write_timings(slow, [(row[0], "clean", *row[2:]) for row in noisy])
    assert screened().noise is None, "the control of another session says nothing of this one"


def test_times_that_were_noted_as_noisy_rule_out_nothing(world: World) -> None:
    world.add("torch", ms=4.0, runtime="torch")
    slow = world.add("slow", ms=6.0)
    world.time("screening", 8)
    budget = Budget(max_drop=1.0, min_speedup=1.5)
    assert select.shortlist(world.run, world.candidates, budget).order == ()
    assert select.shortlist(world.run, world.candidates, budget, {slow: "it was noisy then"}).order == (slow,)


def test_a_named_shortlist_keeps_the_users_order(ladder: World) -> None:
    order = [ladder.candidates[6].id, ladder.candidates[1].id]
    found = select.named(ladder.candidates, order)
    assert (found.order, found.selection) == (tuple(order), "named")
    assert set(found.left_out.values()) == {"it was not named"}
    assert found.free_rival == ladder.candidates[1].id  # the first that is free


def test_what_is_too_large_needs_no_look(ladder: World) -> None:
    large, small = sorted((ladder.candidates[6], ladder.candidates[1]), key=lambda one: -one.artifact.size_mb)
    budget = Budget(max_size_mb=(large.artifact.size_mb + small.artifact.size_mb) / 2)
    oversized = select.oversized(ladder.candidates, budget)
    assert large.id in oversized
    assert small.id not in oversized
    assert select.oversized(ladder.candidates, Budget()) == {}
    found = select.named(ladder.candidates, [small.id], "holm", oversized)
    assert "MB allowed" in found.left_out[large.id]
    tested_before = select.named(ladder.candidates, [large.id, small.id], "holm", oversized)
    assert tested_before.order == (large.id, small.id), "what a stored verdict tested, it tested"


def test_the_rival_in_the_same_runtime_is_the_unchanged_model_in_f32(ladder: World) -> None:
    rivals = {
        candidate.name: rival.name if (rival := select.same_runtime_rival(ladder.candidates, candidate)) else None
        for candidate in ladder.candidates
    }
    assert rivals == {
        "torch": None,
        "onnx@onnxruntime": None,
        "onnx@openvino": None,
        "bf16@openvino": "onnx@openvino",
        "int8@onnxruntime": "onnx@onnxruntime",
        "int8@openvino": "onnx@openvino",
        "prune=0.7+int8@openvino": "onnx@openvino",
    }


def test_an_image_won_on_val_makes_no_model_safer_than_one_that_never_differs(world: World) -> None:
    world.add("torch", ms=4.0, runtime="torch")
    world.add("lucky", ms=1.0, gained=(3, 0))
    world.add("equal", ms=2.0)
    world.time("screening", 6)
    assert names(world, select.shortlist(world.run, world.candidates, Budget(max_drop=1.0))) == ["equal", "lucky"]


def test_a_tiny_val_set_on_which_everything_changes_still_gives_an_order(world: World) -> None:
    world.add("torch", ms=4.0, runtime="torch")
    world.add("other", ms=1.0, lost=(376, 0), gained=(24, 0))
    world.time("screening", 6)
    assert not select.shortlist(world.run, world.candidates, Budget(max_drop=1.0)).order


def test_a_compression_that_is_hardly_slower_than_the_free_rival_is_tested_all_the_same(world: World) -> None:
    world.add("torch", ms=4.0, runtime="torch")
    world.add("onnx", ms=0.50, free=True)
    world.add("int8", ms=0.52, lost=(1, 1))
    world.add("slow int8", ms=0.9, lost=(1, 1))
    world.time("screening", 4)
    found = select.shortlist(world.run, world.candidates, Budget(max_drop=1.0))
    assert names(world, found) == ["onnx", "int8"]
    assert "'onnx' is as safe on val or safer" in reasons(world, found)["slow int8"]


def test_the_front_keeps_the_small_one_that_the_shortlist_has_no_use_for(world: World) -> None:
    """Smaller and slower than 'quick': who wishes for size can see it, who wishes for speed alone has no use for it."""
    world.add("torch", ms=4.0, runtime="torch")
    world.add("quick", ms=1.0, kilobytes=100)
    world.add("small", ms=2.0, kilobytes=20)
    world.add("neither", ms=3.0, kilobytes=100)
    world.time("screening", 6)
    budget = Budget(max_drop=2.0)
    screened = [one for _, one in select.screen(Evidence(world.run), world.candidates, budget)]
    kept = select.front([one for one in screened if isinstance(one, select.Screened)])
    assert [one.candidate.name for one in kept] == ["quick", "small"]
    assert names(world, select.shortlist(world.run, world.candidates, budget))[-1] == "quick"
    tight = select.shortlist(world.run, world.candidates, Budget(max_drop=2.0, max_size_mb=0.05))
    assert names(world, tight) == ["small"]
