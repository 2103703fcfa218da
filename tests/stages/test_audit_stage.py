"""The audit as a stage: what it writes, what it keeps, and what it never touches."""

from __future__ import annotations

import html
from pathlib import Path

import pytest
from PIL import Image

from made_images import fill, picture
from torchstone.audit import clean, features
from torchstone.core import files, registry, tables
from torchstone.core.errors import ArtifactError, ConfigError, DataError, UserError
from torchstone.core.values import CATALOG_VERSION, Catalog
from torchstone.data.findings import ITEMS_NAMED
from torchstone.stages import audit as stage
from torchstone.stages.audit import Audit


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = fill(tmp_path / "images", {"cat": 20, "dog": 20})
    picture(3).save(root / "dog" / "mistaken.png")
    Image.new("RGB", (24, 24)).save(root / "cat" / "black.png")
    return root


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def audited(images: Path, runs: Path, *, fix: bool = False, out: Path | None = None) -> Audit:
    return stage.audit(str(images), out=out, fix=fix, quick=True, runs=runs)


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that are read from now on."""
    read, seen = stage.catalogs.read, []
    monkeypatch.setattr(
        stage.catalogs, "read", lambda source, *args, **rest: seen.append(source) or read(source, *args, **rest)
    )
    return seen


def test_findings_marks_and_page_are_written(images: Path, runs: Path) -> None:
    found = audited(images, runs)
    assert found.directory.parent == runs / "audits"
    assert found.directory.name.startswith("images-")
    assert found.cleaned is None
    assert {finding.check for finding in found.findings} >= {"conflicting_labels", "blank"}
    assert found.page.read_text().startswith("<!DOCTYPE html>")
    assert not (found.directory / clean.CLEANED).exists()
    assert (found.directory / clean.MARKS).exists()


def test_a_second_call_reads_nothing_again(images: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = audited(images, runs)
    seen = reads(monkeypatch)
    second = audited(images, runs, fix=True)
    assert seen == []
    assert second.findings == first.findings
    assert second.page.read_text() == first.page.read_text()
    assert second.cleaned and second.cleaned.drop == 3


def test_a_check_or_package_that_came_later_counts_for_an_audited_folder(
    images: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = registry.data_checks.names()
    without = [name for name in names if name != "blank"]
    with monkeypatch.context() as before:
        before.setattr(registry.data_checks, "names", lambda: without)
        assert "blank" not in {finding.check for finding in audited(images, runs).findings}
    seen = reads(monkeypatch)
    assert "blank" in {finding.check for finding in audited(images, runs).findings}
    assert seen == [], "the images are the same"
    (stamp,) = runs.rglob(stage.STAMP)
    made_of = files.read_json(stamp)
    files.write_json(stamp, {**made_of, "simplejpeg": not made_of["simplejpeg"]})
    audited(images, runs)
    assert len(seen) == 1, "another decoder notices other damage"


def test_a_catalog_of_another_version_is_read_again(images: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = audited(images, runs)
    stored = first.directory / "data" / "catalog.json"
    stored.write_text(stored.read_text().replace(f'"schema_version": {CATALOG_VERSION}', '"schema_version": 1'))
    with pytest.raises(ArtifactError, match="catalog of version 1"):
        Catalog.load(stored)
    seen = reads(monkeypatch)
    assert audited(images, runs).findings == first.findings
    assert len(seen) == 1


def test_a_cleaned_catalog_stays_while_its_images_do(images: Path, runs: Path) -> None:
    cleaned = audited(images, runs, fix=True).cleaned
    assert cleaned
    audited(images, runs)
    assert cleaned.path.exists()


def test_a_class_without_images_is_a_finding(images: Path, runs: Path) -> None:
    (images / "fox").mkdir()
    (images / "fox" / "broken.png").write_bytes(b"nonsense")
    found = audited(images, runs, fix=True)
    (missing,) = [finding for finding in found.findings if finding.check == "missing_classes"]
    assert (missing.severity, missing.evidence["classes"]) == ("error", ["fox"])


def test_the_page_names_the_command_as_a_shell_takes_it(images: Path, runs: Path, tmp_path: Path) -> None:
    root, place = images.rename(tmp_path / "two words"), tmp_path / "an audit"
    text = html.unescape(audited(root, runs, out=place).page.read_text())
    assert f"torchstone audit '{root}' --out '{place}' --fix" in text


def test_a_changed_source_is_read_again(images: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audited(images, runs, fix=True)
    seen = reads(monkeypatch)
    (images / "dog" / "mistaken.png").unlink()
    found = audited(images, runs)
    assert len(seen) == 1
    assert "conflicting_labels" not in {finding.check for finding in found.findings}
    assert not (found.directory / clean.CLEANED).exists(), "what was cleaned by older findings"


def test_what_was_lost_of_an_audit_is_made_again(images: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = audited(images, runs)
    seen = reads(monkeypatch)
    first.page.unlink()
    assert audited(images, runs).page.exists()
    assert seen == [], "the images were not changed"
    (first.directory / "data" / "catalog.json").write_text("{")
    assert audited(images, runs).findings == first.findings
    assert len(seen) == 1


def test_two_folders_of_one_name_have_two_audits(images: Path, runs: Path, tmp_path: Path) -> None:
    other = fill(tmp_path / "elsewhere" / "images", {"cat": 10, "dog": 10}, start=500)
    assert audited(images, runs).directory != audited(other, runs).directory


def test_the_images_are_never_changed(images: Path, runs: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in images.rglob("*")}
    audited(images, runs, fix=True)
    assert {path: path.stat().st_mtime_ns for path in images.rglob("*")} == before


def test_a_cleaned_catalog_can_be_audited(images: Path, runs: Path) -> None:
    found = audited(images, runs, fix=True)
    assert found.cleaned
    again = audited(found.cleaned.path, runs)
    assert again.catalog.images == found.catalog.images - 3
    assert not {finding.check for finding in again.findings} & {"conflicting_labels", "blank"}


def test_a_directory_of_other_things_is_never_written_to(images: Path, runs: Path, tmp_path: Path) -> None:
    place = tmp_path / "project"
    (place / "data").mkdir(parents=True)
    (place / "data" / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other things"):
        audited(images, runs, out=place)
    assert [path.name for path in place.rglob("*")] == ["data", "precious.txt"]


def test_an_audit_cannot_lie_among_the_images(images: Path, runs: Path) -> None:
    with pytest.raises(ConfigError, match="among the images"):
        audited(images, runs, out=images / "audit")
    assert not (images / "audit").exists()


def test_a_named_place_is_used_again(images: Path, runs: Path, tmp_path: Path) -> None:
    place = tmp_path / "here"
    assert audited(images, runs, out=place).page == place / "audit.html"
    assert audited(images, runs, out=place).directory == place
    assert not runs.exists()


def test_what_cannot_be_read_leaves_nothing_behind(runs: Path, tmp_path: Path) -> None:
    root = fill(tmp_path / "images", {"cat": 3, "dog": 3})
    for path in root.rglob("*.png"):
        path.write_bytes(b"nonsense")
    with pytest.raises(DataError, match="dog"):
        audited(root, runs)
    assert [path for path in runs.rglob("*") if path.is_file()] == []
    with pytest.raises(UserError, match="does not exist"):
        audited(tmp_path / "nowhere", runs)


def test_a_source_that_can_no_longer_be_read_keeps_the_last_audit(images: Path, runs: Path) -> None:
    first = audited(images, runs)
    for path in images.rglob("*.png"):
        path.write_bytes(b"nonsense")
    with pytest.raises(DataError):
        audited(images, runs)
    assert first.page.exists()
    fill(images, {"cat": 20, "dog": 20})
    assert audited(images, runs).catalog.images > 30


def test_the_marks_name_every_item(images: Path, runs: Path) -> None:
    for number in range(60):
        (images / "cat" / f"broken{number}.jpg").write_bytes(b"nonsense")
    found = audited(images, runs)
    unreadable = next(finding for finding in found.findings if finding.check == "unreadable")
    assert (len(unreadable.items), unreadable.evidence["images"]) == (ITEMS_NAMED, 60)
    marks, _ = tables.read(found.directory / clean.MARKS)
    assert marks["check"].to_list().count("unreadable") == 60


def test_without_the_networks_package_the_rest_is_checked_and_it_is_said(
    images: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "REQUIRES", ("nowhere_to_be_found",))
    found = stage.audit(str(images), runs=runs)
    (left_out,) = [finding for finding in found.findings if finding.check == "features"]
    assert left_out.severity == "info"
    assert "nowhere_to_be_found" in left_out.message
    assert left_out.hint and left_out.hint.startswith("pip install")
    assert "conflicting_labels" in {finding.check for finding in found.findings}


@pytest.mark.slow
def test_a_full_audit_after_a_quick_one_looks_into_the_pictures_and_reads_nothing_twice(
    images: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if features.missing_packages(features.REQUIRES):
        pytest.skip("needs torch, timm and the package of EfficientNet-Lite0")
    audited(images, runs)
    seen = reads(monkeypatch)
    full = stage.audit(str(images), runs=runs)
    assert "features" not in {finding.check for finding in full.findings}
    assert list((runs / "cache" / "features").glob("*.npy"))
    assert audited(images, runs).findings == full.findings, "a quick audit takes what a full one has found"
    assert seen == []
