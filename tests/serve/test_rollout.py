"""Rollouts over a real store: the harmful are stopped, the harmless are promoted, and nothing is forgotten."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from rollout_traffic import CANDIDATE, LATER, STABLE, Model, Traffic, bundle, plan, started

from torchstone.core.errors import ArtifactError, ConfigError
from torchstone.judge import betting
from torchstone.serve.looking import keep_looking
from torchstone.serve.rollout import controller, follow, likeness, record
from torchstone.serve.rollout.attached import current
from torchstone.serve.rollout.controller import Controller, Counts
from torchstone.serve.rollout.follow import Follower
from torchstone.serve.rollout.monitors import MONITORS, Arm, Arms, Pairs
from torchstone.serve.rollout.plan import Split, foreseen, weight_of
from torchstone.serve.rollout.status import by_hand, status
from torchstone.serve.store import tables
from torchstone.serve.values import new_id


class Watched:
    """A rollout with traffic, and a controller that looks when it is told to."""

    def __init__(self, directory: Path, mode, **more) -> None:
        self.new = bundle(directory / "new", CANDIDATE)
        self.plan = plan(mode, **({"candidate": str(self.new)} | more))
        self.url, self.engine = started(directory, self.plan)
        self.traffic = Traffic(url=self.url, plan=self.plan)
        self.ahead = LATER

    def look(self) -> record.Rollout:
        """A new controller counts all that is there: each one begins where the last ended."""
        control = Controller(self.url, clock=lambda: time.time() + self.ahead)
        while control.step():
            pass
        return self.now

    @property
    def now(self) -> record.Rollout:
        with self.engine.connect() as connection:
            found = record.latest(connection)
        assert found is not None
        return found

    @property
    def counts(self) -> Counts:
        return Counts.of_state(self.plan, self.now.state)

    @property
    def last(self) -> record.Decision:
        with self.engine.connect() as connection:
            return record.decided(connection, self.plan.id)[-1]

    def until_decided(
        self, candidate: Model, *, most: int, step: int = 1_000, labelled: float = 1.0, corrections: bool = False
    ) -> record.Rollout:
        for _ in range(0, most, step):
            self.traffic.send(step, candidate, labelled, corrections=corrections)
            if self.look().status != "running":
                break
        return self.now


@pytest.fixture
def shadow(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path, "shadow")
    yield made
    made.engine.dispose()


def canary(tmp_path: Path, **more) -> Watched:
    return Watched(tmp_path, "canary", weight=0.5, **more)


def test_a_candidate_that_is_worse_is_rolled_back(shadow: Watched) -> None:
    found = shadow.until_decided(Model(lost=0.04, gained=0.01), most=8_000)
    assert found.status == "rolled_back"
    said = shadow.last
    assert "accuracy" in said.reason
    assert said.numbers["accuracy"]["worse"] >= said.numbers["accuracy"]["worse_at"] == pytest.approx(-np.log(0.04))
    assert said.numbers["accuracy"]["at_least"] > shadow.plan.margin
    assert "selection" in said.numbers["bias"]


@pytest.mark.parametrize("labels", ["random", "all"])
def test_an_equal_candidate_is_promoted_and_served_from_then_on(tmp_path: Path, labels: str) -> None:
    made = Watched(tmp_path, "shadow", labels=labels)
    found = made.until_decided(Model(lost=0.002, gained=0.002), most=12_000, labelled=0.5 if labels == "random" else 1)
    assert found.status == "promoted"
    assert made.last.numbers["accuracy"]["at_most"] < made.plan.margin
    with made.engine.begin() as connection:
        assert record.serving_of(connection, "flowers") == (str(made.new), CANDIDATE)
    made.engine.dispose()


def test_labels_that_people_send_leave_promotion_to_a_person(shadow: Watched) -> None:
    """The same candidate and labels, of which nobody said where they come from."""
    found = shadow.until_decided(Model(lost=0.002, gained=0.002), most=3_000, step=1_500)
    assert found.status == "running"
    assert shadow.last.kind == "held"
    assert "drop of accuracy is at most" in shadow.last.reason
    assert "torchstone rollout promote" in shadow.last.reason
    shadow.look()
    with shadow.engine.connect() as connection:
        assert [one.kind for one in record.decided(connection, shadow.plan.id)] == ["started", "held"]
        told = status(connection)
    assert told is not None
    assert told["numbers"]["held"] == shadow.last.reason


@pytest.mark.parametrize("labels", ["some", "random", "all"])
@pytest.mark.parametrize("mode", ["shadow", "canary"])
def test_corrections_promote_nothing(tmp_path: Path, mode: str, labels: str) -> None:
    """Labels of wrong answers alone: to these a candidate can only do better, however many others it loses."""
    made = Watched(tmp_path, mode, labels=labels, margin=0.03, weight=0.5 if mode == "canary" else 1.0)
    made.until_decided(Model(lost=0.15, gained=0.05), most=4_500, step=1_500, corrections=True)
    assert made.now.status == "running"
    accuracy = controller.numbers(made.plan, made.counts)["accuracy"]
    assert accuracy["no_worse"] >= accuracy["no_worse_at"]
    assert made.last.kind == "held"
    if labels != "some":
        assert "not like all requests" in made.last.reason
    made.engine.dispose()


def test_the_horizon_says_what_held_it(tmp_path: Path) -> None:
    made = Watched(tmp_path, "shadow", horizon_labels=2_000)
    assert made.until_decided(Model(lost=0.002, gained=0.002), most=2_000).status == "undecided"
    assert "it is not promoted after 2,000 labels" in made.last.reason
    assert "who sends them chooses" in made.last.reason
    made.engine.dispose()


def test_an_honest_sample_is_not_suspected() -> None:
    """At most 1 % of honest samples ever are, though one looks again and again."""
    rng = np.random.default_rng(0)
    suspected = 0
    for _ in range(50):
        drawn = rng.random((3_000, 2)) < (0.04, 0.2)
        suspected += any(
            not likeness.compared(
                (int((drawn[:row, 0] & drawn[:row, 1]).sum()), int(drawn[:row, 1].sum())),
                (int(drawn[:row, 0].sum()), row),
            )["alike"]
            for row in (100, 200, 400, 800, 1_600, 3_000)
        )
    assert suspected <= 1


def test_models_that_never_differ_need_no_labels(shadow: Watched) -> None:
    found = shadow.until_decided(Model(), most=3_000, labelled=0.0)
    assert found.status == "promoted"
    assert "share of answers that differ" in shadow.last.reason
    assert shadow.last.numbers["labels"] == 0


def test_answers_that_differ_are_no_harm_by_themselves(shadow: Watched) -> None:
    shadow.until_decided(Model(lost=0.05, gained=0.05), most=2_000, labelled=0.0)
    assert shadow.now.status == "running"
    assert shadow.counts.disagreement.worse > 100


def test_a_candidate_that_fails_is_rolled_back_without_labels(shadow: Watched) -> None:
    found = shadow.until_decided(Model(fails=0.05), most=2_000, step=500, labelled=0.0)
    assert found.status == "rolled_back"
    assert "failed requests" in shadow.last.reason


def test_a_slow_candidate_is_rolled_back_without_labels(shadow: Watched) -> None:
    found = shadow.until_decided(Model(times=1.5), most=3_000, step=500, labelled=0.0)
    assert found.status == "rolled_back"
    assert "slow answers" in shadow.last.reason
    slow = shadow.counts.slow_ms
    assert slow is not None
    assert 9.5 < slow < 10


def test_an_answer_from_the_cache_says_nothing_of_speed(shadow: Watched) -> None:
    shadow.until_decided(Model(lost=0.02, gained=0.02, times=0.0), most=2_000, step=1_000, labelled=0.0)
    assert shadow.counts.slow_ms is not None
    assert shadow.counts.monitors["latency"].observations == 0


@pytest.mark.parametrize(
    ("candidate", "status"),
    [
        (Model(lost=0.12, gained=0.0), "rolled_back"),
        (Model(fails=0.08), "rolled_back"),
        (Model(times=1.5), "rolled_back"),
        (Model(), "running"),
    ],
)
def test_a_canary_compares_its_arms(tmp_path: Path, candidate: Model, status: str) -> None:
    made = canary(tmp_path)
    made.until_decided(candidate, most=4_000, step=2_000)
    assert made.now.status == status
    made.engine.dispose()


def test_what_the_stable_model_answers_for_a_candidate_that_failed_belongs_to_neither_arm(tmp_path: Path) -> None:
    made = canary(tmp_path, errors_margin=0.5)
    made.traffic.send(1_000, Model(fails=0.2))
    made.look()
    role = tables.predictions.c.role
    with made.engine.connect() as connection:
        count = {
            one: connection.scalar(sa.select(sa.func.count()).where(role == one)) or 0 for one in ("stable", "canary")
        }
    assert count["stable"] + count["canary"] == 1_000 + made.counts.failed
    errors = made.counts.monitors["errors"]
    assert isinstance(errors, Arms)
    waiting = (len(errors.stable), len(errors.canary))
    assert [errors.observations + waiting[arm] + errors.dropped[arm] for arm in (0, 1)] == [
        1_000 - count["canary"], count["canary"]
    ]  # fmt: skip
    assert made.counts.asked == (1_000 - count["canary"], count["canary"])
    made.engine.dispose()


def test_a_controller_that_is_killed_at_any_moment_counts_nothing_twice(tmp_path: Path) -> None:
    """Looked at after each piece by a new controller, or once at the end: the same counts."""
    made = {}
    for name, often in (("often", True), ("once", False)):
        watched = Watched(tmp_path / name, "shadow", margin=0.0)
        for _ in range(4):
            watched.traffic.send(700, Model(lost=0.02, gained=0.02, fails=0.001))
            if often:
                watched.look()
        watched.look()
        made[name] = watched.counts
        watched.engine.dispose()
    assert made["often"].monitors["accuracy"] == made["once"].monitors["accuracy"]
    assert made["often"].monitors["errors"] == made["once"].monitors["errors"]
    assert made["often"].labels == made["once"].labels == 2_800


def test_two_controllers_at_once_count_once(shadow: Watched) -> None:
    shadow.traffic.send(300, Model(lost=0.02, gained=0.02))
    with shadow.engine.connect() as connection:
        old = record.running(connection)
    assert old is not None
    shadow.look()
    with shadow.engine.begin() as connection:
        assert not record.keep(connection, old, {})
    assert shadow.counts.labels == 300


def test_rows_that_were_just_written_wait(shadow: Watched) -> None:
    shadow.traffic.send(100, Model())
    shadow.ahead = 0
    shadow.look()
    assert shadow.counts.answers == 0
    shadow.ahead = LATER
    shadow.look()
    assert shadow.counts.answers == 100


def test_labels_of_other_images_are_counted_apart(shadow: Watched) -> None:
    from torchstone.serve.store.writer import Writer

    writer = Writer(shadow.url)
    writer.feedback(id=new_id(), label=1, time=time.time())
    writer.close()
    shadow.look()
    assert (shadow.counts.stray, shadow.counts.labels) == (1, 0)


def test_a_second_label_of_an_image_changes_nothing(shadow: Watched) -> None:
    from torchstone.serve.store.writer import Writer

    shadow.traffic.send(50, Model(lost=0.2))
    shadow.look()
    before = shadow.counts.monitors["accuracy"]
    writer = Writer(shadow.url)
    for id in shadow.traffic.ids:
        writer.feedback(id=id, label=0, time=time.time())
    writer.close()
    shadow.look()
    assert shadow.counts.monitors["accuracy"] == before


def test_the_horizon_ends_what_proves_nothing(tmp_path: Path) -> None:
    made = Watched(tmp_path, "shadow", horizon_labels=500)
    assert made.until_decided(Model(lost=0.03, gained=0.03), most=1_000, step=500).status == "undecided"
    assert "horizon" in made.last.reason
    made.engine.dispose()
    late = Watched(tmp_path / "late", "shadow", horizon_days=2.0, started=time.time() - 3 * 86_400)
    assert late.look().status == "undecided"
    late.engine.dispose()


def test_one_rollout_at_a_time(shadow: Watched) -> None:
    with shadow.engine.begin() as connection, pytest.raises(ConfigError, match="another rollout is running"):
        record.start(connection, plan())


def test_a_server_that_starts_again_serves_what_was_promoted(tmp_path: Path) -> None:
    old, new = bundle(tmp_path / "old", STABLE), bundle(tmp_path / "new", CANDIDATE)
    made = Watched(tmp_path / "state", "shadow", candidate=str(new), stable=str(old))
    with made.engine.begin() as connection:
        decision = record.Decision(kind="promoted", reason="by hand", numbers={}, time=time.time())
        found = record.running(connection)
        assert found is not None
        assert record.end(connection, found, "promoted", decision)
        assert record.register(connection, "flowers", old, STABLE) == new
        assert record.register(connection, "flowers", new, CANDIDATE) == new
    made.engine.dispose()


def test_a_server_with_another_stable_model_ends_the_rollout(shadow: Watched, tmp_path: Path) -> None:
    with shadow.engine.begin() as connection:
        record.register(connection, "flowers", tmp_path, "c" * 64)
    assert shadow.now.status == "aborted"
    assert "another stable model" in shadow.last.reason


def test_a_key_stays_on_its_side_and_in_when_the_weight_grows() -> None:
    keys = [f"user-{number}" for number in range(4_000)]
    small, large = (Split(plan("canary", weight=weight)) for weight in (0.05, 0.2))
    inside = {key for key in keys if small.route(new_id(), key).answer == "canary"}
    assert inside == {key for key in keys if small.route(new_id(), key).answer == "canary"}
    assert inside <= {key for key in keys if large.route(new_id(), key).answer == "canary"}
    assert 0.035 < len(inside) / len(keys) < 0.065
    other = Split(plan("canary", weight=0.05, salt="another"))
    assert inside != {key for key in keys if other.route(new_id(), key).answer == "canary"}


def test_without_a_key_each_request_is_drawn_anew() -> None:
    split = Split(plan("canary", weight=0.3))
    share = np.mean([split.route(new_id(), None).answer == "canary" for _ in range(4_000)])
    assert 0.27 < share < 0.33
    everything = Split(plan("shadow"))
    assert all(everything.route(new_id(), None) == ("stable", True) for _ in range(100))


def test_blocks_do_not_depend_on_the_pieces_in_which_answers_come() -> None:
    rng = np.random.default_rng(0)
    answers: list[tuple[Arm, bool]] = [
        ("canary" if one < 0.05 else "stable", two < 0.3) for one, two in rng.random((4_230, 2)).tolist()
    ]
    whole = Arms.of_weight(0.05).add(answers)
    pieces = Arms.of_weight(0.05)
    for part in np.array_split(np.arange(len(answers)), 17):
        pieces = Arms.of_row(pieces.add(answers[row] for row in part).row())
    assert whole == pieces
    assert whole.sizes == (19, 1)
    assert 19 * whole.observations + len(whole.stable) + whole.dropped[0] == sum(arm == "stable" for arm, _ in answers)
    assert whole.observations + len(whole.canary) + whole.dropped[1] == sum(arm == "canary" for arm, _ in answers)
    in_turn: list[tuple[Arm, bool]] = [("stable", bad) for bad in (rng.random(19) < 0.3).tolist()]
    in_turn.append(("canary", True))
    values, counts = Arms.of_weight(0.05).add(in_turn * 3).seen()
    assert values @ counts / counts.sum() == pytest.approx(1 - np.mean([bad for _, bad in in_turn[:-1]]))


def test_an_equal_canary_survives_a_change_of_the_images() -> None:
    """Heavy keys leave it half of its share; then many images are unusable, for both. Answers of one time alone are
    compared."""
    back, errors = 0, MONITORS["errors"]
    for seed in range(3):
        rng = np.random.default_rng(seed)
        bad = np.repeat([0.001, 0.1], 20_000)
        drawn = rng.random((40_000, 2))
        found = Arms.of_weight(0.05).add(
            ("canary" if mine else "stable", fails)
            for mine, fails in (drawn < np.c_[np.full(40_000, 0.025), bad]).tolist()
        )
        assert found.dropped[0] > 15_000
        back += betting.log_wealth(*found.seen(), errors.margin, "worse") >= betting.threshold(errors.harm)
    assert back == 0


@pytest.mark.parametrize("weight", [1.0, 0.9999, 0.0001])
def test_a_canary_has_somebody_to_be_compared_with(weight: float) -> None:
    with pytest.raises(ValueError, match="nobody to be compared with"):
        plan("canary", weight=weight)
    plan("shadow", weight=weight)


def test_pairs_are_counted_by_which_of_both_is_bad() -> None:
    found = Pairs().add([True, True, False, False, False], [True, False, True, False, False])
    assert (found.worse, found.better, found.same) == (1, 1, 3)
    assert Pairs.of_row(found.row()) == found


def test_a_worker_follows_the_rollout(tmp_path: Path) -> None:
    made = canary(tmp_path)
    told: list[tuple[str, ...]] = []
    follower = Follower(
        made.url, "flowers", stable=Path("/bundles/old"), opens=lambda place, id: told.append(("open", str(place), id)),
        closes=lambda: told.append(("close",)), replaces=lambda place, id: told.append(("replace", str(place), id)),
    )  # fmt: skip
    assert follower.route(new_id(), None).answer == "stable"
    follower.look()
    follower.look()
    assert told == [("open", str(made.new), CANDIDATE)]
    assert {follower.route(new_id(), None).answer for _ in range(100)} == {"stable", "canary"}
    with made.engine.begin() as connection:
        found = record.running(connection)
        assert found is not None
        decision = record.Decision(kind="promoted", reason="by hand", numbers={}, time=time.time())
        record.end(connection, found, "promoted", decision)
    follower.look()
    assert told[1:] == [("close",), ("replace", str(made.new), CANDIDATE)]
    assert {follower.route(new_id(), None).answer for _ in range(100)} == {"stable"}
    follower.close()
    made.engine.dispose()


def test_a_candidate_that_cannot_be_opened_gets_nothing(tmp_path: Path) -> None:
    made = canary(tmp_path)

    def broken(place: Path, id: str) -> None:
        raise ConfigError("its golden images fail")

    follower = Follower(
        made.url, "flowers", stable=Path("/bundles/old"), opens=broken, closes=lambda: None, replaces=lambda *_: None
    )
    follower.look()
    assert made.now.status == "aborted"
    assert "golden images fail" in made.last.reason
    assert follower.route(new_id(), None).answer == "stable"
    follower.close()
    made.engine.dispose()


def test_nobody_is_routed_to_a_candidate_that_nobody_watches(tmp_path: Path) -> None:
    made = canary(tmp_path)
    follower = Follower(
        made.url,
        "flowers",
        stable=Path("/bundles/old"),
        opens=lambda *_: None,
        closes=lambda: None,
        replaces=lambda *_: None,
        trust=0.0,
    )
    follower.look()
    assert {follower.route(new_id(), None).answer for _ in range(100)} == {"stable", "canary"}
    made.engine.dispose()
    for file in tmp_path.glob(f"{tables.FILE}*"):  # the store is gone; what is in its place is no database
        file.write_bytes(b"nothing" * 1_000)
    follower._engine.dispose()
    follower.look()
    assert {follower.route(new_id(), None).answer for _ in range(100)} == {"stable"}
    follower.close()


def test_nobody_is_routed_to_a_candidate_whose_controller_is_dead(tmp_path: Path) -> None:
    """Though the store is there. When the controller gives a sign again, the candidate is opened again."""
    made = canary(tmp_path)
    opened: list[Path] = []
    follower = Follower(
        made.url, "flowers", stable=Path("/bundles/old"), opens=lambda place, _: opened.append(place),
        closes=opened.clear, replaces=lambda *_: None, trust=0.0,
    )  # fmt: skip
    follower.look()
    follower.look()
    assert (opened, follower.route(new_id(), None)) == ([], ("stable", False))
    with made.engine.connect() as connection:
        found = status(connection)
    assert found is not None
    assert found["controller"] is None
    made.look()
    follower.look()
    assert opened == [made.new]
    follower.close()
    made.engine.dispose()


def test_a_bundle_that_cannot_be_served_yet_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = canary(tmp_path)
    broken = [OSError("it is still being copied"), None]
    tried: list[Path] = []

    def replaces(place: Path, id: str) -> None:
        tried.append(place)
        if (error := broken.pop(0)) is not None:
            raise error

    follower = Follower(
        made.url, "flowers", stable=Path("/bundles/old"), opens=lambda *_: None, closes=lambda: None, replaces=replaces
    )
    with made.engine.begin() as connection:
        by_hand(connection, "promoted", "by hand", time.time())
    follower.look()
    follower.look()
    assert (len(tried), follower.failures) == (1, 1)
    monkeypatch.setattr(follow, "RETRY", 0.0)
    follower.look()
    follower.look()
    assert tried == [made.new, made.new]
    follower.close()
    made.engine.dispose()


def test_a_candidate_that_could_not_be_closed_is_closed_later(tmp_path: Path) -> None:
    made = canary(tmp_path)
    calls = iter([TimeoutError("it hangs"), None])

    def closes() -> None:
        if (error := next(calls)) is not None:
            raise error

    follower = Follower(
        made.url, "flowers", stable=Path("/bundles/old"), opens=lambda *_: None, closes=closes, replaces=lambda *_: None
    )
    follower.look()
    with made.engine.begin() as connection:
        by_hand(connection, "aborted", "by hand", time.time())
    with pytest.raises(TimeoutError):
        follower.look()
    assert follower.route(new_id(), None).answer == "stable"
    follower.look()
    follower.look()
    assert next(calls, "all") == "all"
    follower.close()
    made.engine.dispose()


def test_a_thread_that_looks_ends_only_when_it_is_told_to(capsys: pytest.CaptureFixture[str]) -> None:
    stop, failures = threading.Event(), []
    known = ConfigError("a plan of another version")
    errors: list[Exception | None] = [known, known, None, KeyError(1)]

    def look() -> None:
        if not errors:
            stop.set()
        elif (error := errors.pop(0)) is not None:
            raise error

    keep_looking(look, stop, pause=0.0, what="no rollout is watched", failed=lambda: failures.append(1))
    assert len(failures) == 3
    said = capsys.readouterr().err
    assert said.count("a plan of another version") == 1
    assert "KeyError(1)" in said


def test_a_plan_of_another_version_stops_no_thread_and_can_be_aborted(
    shadow: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "POLL", 0.0)
    with shadow.engine.begin() as connection:
        connection.execute(sa.update(tables.rollouts).values(plan={"unknown": 1}))
    stop, failures = threading.Event(), []

    def failed() -> None:
        failures.append(1)
        if len(failures) == 2:
            stop.set()

    Controller(shadow.url, failed=failed).run(stop)
    assert len(failures) == 2
    with shadow.engine.begin() as connection:
        ended = by_hand(connection, "aborted", "by hand", time.time())
        assert ended is not None
        assert ended.rollout == shadow.plan.id
        assert record.running(connection) is None


@pytest.mark.parametrize("kind", ["aborted", "promoted"])
def test_who_watches_is_told_what_a_person_has_ended(shadow: Watched, kind: record.Status) -> None:
    ends: list[tuple[str, str]] = []
    control = Controller(shadow.url, ended=lambda plan, status: ends.append((plan.id, status)))
    control.step()
    with shadow.engine.begin() as connection:
        by_hand(connection, kind, "by hand", time.time())
    for _ in range(2):
        control.step()
    assert ends == [(shadow.plan.id, kind)]


@pytest.mark.parametrize("by", ["controller", "hand"])
def test_a_directory_that_was_written_again_is_not_promoted(tmp_path: Path, by: str) -> None:
    made = Watched(tmp_path, "shadow")
    bundle(made.new, "c" * 64)
    if by == "controller":
        assert made.until_decided(Model(), most=3_000, labelled=0.0).status == "aborted"
        assert "holds another model" in made.last.reason
    else:
        with made.engine.begin() as connection, pytest.raises(ArtifactError, match="holds another model"):
            by_hand(connection, "promoted", "by hand", time.time())
    with made.engine.connect() as connection:
        assert record.serving_of(connection, "flowers") == (made.plan.stable, STABLE)
    made.engine.dispose()


def test_a_restart_does_not_serve_what_was_written_where_a_promoted_bundle_was(tmp_path: Path) -> None:
    old = bundle(tmp_path / "old", STABLE)
    made = Watched(tmp_path / "state", "shadow", stable=str(old))
    with made.engine.begin() as connection:
        by_hand(connection, "promoted", "by hand", time.time())
        bundle(made.new, "c" * 64)
        assert record.register(connection, "flowers", old, STABLE) == old
        assert record.serving_of(connection, "flowers") == (str(old), STABLE)
    made.engine.dispose()


def test_a_reload_of_another_model_ends_the_rollout_and_is_known_to_the_next(shadow: Watched) -> None:
    follower = Follower(
        shadow.url, "flowers", stable=Path("/bundles/old"), opens=lambda *_: None, closes=lambda: None,
        replaces=lambda *_: None,
    )  # fmt: skip
    follower.opened(Path("/bundles/old"), STABLE)
    follower.look()
    assert shadow.now.status == "running"
    follower.opened(Path("/bundles/old"), "c" * 64)
    follower.tell()
    assert shadow.now.status == "aborted"
    assert "loaded again" in shadow.last.reason
    with shadow.engine.connect() as connection:
        assert record.stable(connection, None) == ("flowers", Path("/bundles/old"), "c" * 64)
    follower.opened(Path("/bundles/another"), "d" * 64)  # which was promoted over meanwhile
    follower.look()
    with shadow.engine.connect() as connection:
        assert record.stable(connection, None)[2] == "c" * 64
    follower.close()


def test_answers_of_another_stable_model_are_no_pairs(shadow: Watched) -> None:
    shadow.traffic.send(50, Model())
    with shadow.engine.begin() as connection:
        connection.execute(
            sa.update(tables.predictions).where(tables.predictions.c.role == "stable").values(bundle="c" * 12)
        )
    shadow.look()
    assert (shadow.counts.answers, shadow.counts.unpaired, shadow.counts.monitors["errors"].observations) == (50, 50, 0)


def test_a_worker_in_a_dead_ones_place_serves_what_was_promoted(tmp_path: Path) -> None:
    made = canary(tmp_path)
    frozen = {"flowers": Path("/bundles/old"), "unknown": Path("/bundles/other")}
    assert current(made.url, frozen) == {**frozen}
    with made.engine.begin() as connection:
        by_hand(connection, "promoted", "by hand", time.time())
    assert current(made.url, frozen) == {**frozen, "flowers": made.new}
    made.engine.dispose()
    assert current(f"sqlite:///{tmp_path}/none.db", frozen) == frozen


def test_shares_of_the_requests_are_read_as_people_write_them() -> None:
    assert weight_of("5%") == weight_of("0.05") == weight_of(" 5 % ") == 0.05
    for text in ("0", "150%", "half", "-1%", "nan"):
        with pytest.raises(ConfigError, match="no share"):
            weight_of(text)


def test_it_says_beforehand_what_the_labels_can_show() -> None:
    assert "1,388 labelled pairs catch" in foreseen(plan())
    assert "6.5 points worse" in foreseen(plan(margin=0.05))
    assert "a person may promote" in foreseen(plan())
    assert "a person" not in foreseen(plan(labels="random"))
    for margin in (0.0, 0.5, 0.99):
        foreseen(plan(margin=margin))


def test_numbers_of_a_decision_can_be_recomputed_from_the_stored_counts(shadow: Watched) -> None:
    shadow.until_decided(Model(fails=0.05), most=2_000, step=500)
    assert controller.numbers(shadow.plan, shadow.counts) == shadow.last.numbers
