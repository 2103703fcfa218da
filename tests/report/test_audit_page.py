"""The page of an audit shows every finding with its images, and holds everything it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from test_report import CHROMIUM, HOSTILE, Document

from made_images import changed, fill, picture
from torchstone.audit import audit, clean
from torchstone.core.values import Catalog, Finding
from torchstone.data import findings as reported
from torchstone.data.catalog import read
from torchstone.report import audit_page


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Two parts with a leak, a picture under two labels, copies, dark images and broken files."""
    place = tmp_path_factory.mktemp("audited")
    root = fill(place / "images", {"train/cat": 40, "train/dog": 40, "test/cat": 8, "test/dog": 8}, side=48)
    picture(0, 48, 48).save(root / "test" / "cat" / "leak.jpg", quality=80)
    picture(50, 48, 48).save(root / "train" / "cat" / "mistaken.png")
    for number in range(9):
        changed(picture(1000 + number, 48, 48), 0.2).save(root / "train" / "dog" / f"dark{number}.png")
        (root / "train" / "dog" / f"broken{number}.png").write_bytes(b"nonsense")
    picture(700, 200, 120).save(root / "train" / "dog" / "large.jpg")
    return read(str(root), place / "data")


@pytest.fixture(scope="module")
def findings(catalog: Catalog) -> list[Finding]:
    place = catalog.table.parent.parent
    clean.store(audit(catalog, reported.load(catalog.table.parent)), place)
    return reported.load(place)


def written(catalog: Catalog, findings: list[Finding]) -> tuple[str, Document]:
    path = catalog.table.parent / "audit.html"
    audit_page.write(catalog, findings, path)
    text = path.read_text()
    return text, Document(text)


def images_of(document: Document) -> list[dict[str, str | None]]:
    return [attributes for tag, attributes in document.tags if tag == "img"]


def test_every_finding_is_there_with_its_hint_and_its_images(catalog: Catalog, findings: list[Finding]) -> None:
    _, document = written(catalog, findings)
    checks = {finding.check for finding in findings}
    assert checks >= {"leaks", "conflicting_labels", "near_duplicates", "duplicates", "dark", "unreadable"}
    for finding in findings:
        assert finding.check.replace("_", " ").capitalize() in document.text
        assert not finding.hint or finding.hint in document.text
    shown = {attributes["alt"] for attributes in images_of(document)}
    assert shown >= {"test/cat/leak.jpg", "train/cat/0.png", "train/dog/10.png", "train/cat/mistaken.png"}
    assert shown >= {f"train/dog/dark{number}.png" for number in range(9)}
    for number in range(9):
        assert f"train/dog/broken{number}.png" in document.text
    assert document.text.count("not an image in a format that is read") == 9


def test_the_summary_counts_by_severity_and_leads_to_each_finding(catalog: Catalog, findings: list[Finding]) -> None:
    _, document = written(catalog, findings)
    errors, warnings = (sum(one.severity == name for one in findings) for name in ("error", "warning"))
    assert f"{errors} errors and {warnings} warnings" in document.text
    places = [attributes["href"] for tag, attributes in document.tags if tag == "a"]
    anchors = {f"#{attributes['id']}" for _, attributes in document.tags if "id" in attributes}
    assert set(places) <= anchors
    assert len([place for place in places if place and "-" in place]) == len(findings)
    assert "108 usable images in 2 classes: 91 train, 17 test" in document.text


def test_a_group_stands_side_by_side_and_says_which_is_kept(catalog: Catalog, findings: list[Finding]) -> None:
    page = audit_page.gather(catalog, findings)
    leak = next(section for section in page.sections if section.finding.check == "leaks")
    (group,) = leak.groups
    assert [(image.item, image.part) for image in group.images] == [
        ("test/cat/leak.jpg", "test"),
        ("train/cat/0.png", "train"),
    ]
    text, _ = written(catalog, [leak.finding])
    assert text.count(">kept<") == 1


def test_a_suspect_shows_its_label_and_the_one_it_seems_to_deserve(catalog: Catalog) -> None:
    items = ("train/cat/1.png", "train/dog/2.png")
    finding = Finding(
        check="label_errors", severity="warning", message="2 images", items=items, scores=(0.91, 0.5),
        suggested=("dog", "cat"), evidence={"images": 2},
    )  # fmt: skip
    _, document = written(catalog, [finding])
    assert re.search(r"cat train → dog train/cat/1.png 48 × 48 · 0.91", document.text)
    assert re.search(r"dog train → cat train/dog/2.png", document.text)


def test_the_file_holds_everything_and_is_light(catalog: Catalog, findings: list[Finding]) -> None:
    text, document = written(catalog, findings)
    assert len(text) < 500_000
    sources = [attributes["src"] or "" for attributes in images_of(document)]
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert "script" not in text


def test_many_items_are_cut_and_counted(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_page, "PICTURES", 12)
    items = tuple(f"train/dog/{number}.png" for number in range(20))
    finding = Finding(
        check="outliers", severity="warning", message="x: y", items=items, hint="look", evidence={"images": 1234}
    )
    text, document = written(catalog, [finding])
    assert len(images_of(document)) == audit_page.PICTURES
    assert f"And {1234 - audit_page.PICTURES:,} more" in document.text
    assert 'class="n">1,234<' in text


def test_names_from_outside_are_shown_and_never_run(tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "")
    root = fill(tmp_path / "images", {name: 4, "other": 4})
    Image.new("RGB", (24, 24)).save(root / name / f"{name}.png")
    hostile = read(str(root), tmp_path / "out")
    text, document = written(hostile, audit(hostile, []))
    assert "<script>" not in text
    assert name in document.text


def test_images_that_are_gone_are_named(catalog: Catalog, findings: list[Finding], tmp_path: Path) -> None:
    moved = catalog.model_copy(update={"root": str(tmp_path / "nowhere")})
    path = tmp_path / "audit.html"
    audit_page.write(moved, findings, path)
    document = Document(path.read_text())
    assert not images_of(document)
    assert "not readable" in document.text
    assert "Some images could not be read again" in document.text


def test_nothing_wrong_is_said_in_words(catalog: Catalog) -> None:
    _, document = written(catalog, [])
    assert "Nothing is wrong that the checks could find" in document.text
    assert document.sections() == ["data", "next"]


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_width(catalog: Catalog, findings: list[Finding], tmp_path: Path, width: int) -> None:
    """No element reaches out of a page of this width."""
    import subprocess

    text, _ = written(catalog, findings)
    probe = (
        "<script>addEventListener('load',()=>{document.title='WIDE:'+[...document.querySelectorAll('body *')]"
        ".filter(e=>e.getBoundingClientRect().right>innerWidth+1).map(e=>e.className||e.tagName).join(' ')+':'})"
        "</script>"
    )
    page = tmp_path / "page.html"
    page.write_text(re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</head>", probe + "</head>"))
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"<html><body style='margin:0'><iframe src='page.html' style='border:0;width:{width}px;height:900px' "
        'onload="setTimeout(()=>document.body.dataset.wide=this.contentDocument.title,200)"></iframe></body></html>'
    )
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", "--dump-dom", frame.as_uri(),
        ],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert 'data-wide="WIDE::"' in done.stdout, re.findall(r'data-wide="[^"]*"', done.stdout)
