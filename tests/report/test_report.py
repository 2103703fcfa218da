"""The report says what the verdict says, holds everything it shows, and can be read on a desk and on a telephone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from torchstone import report
from torchstone.cli import _answers
from torchstone.core.errors import ArtifactError
from torchstone.core.run import Run
from torchstone.core.values import Budget
from torchstone.core.verdict import Verdict
from torchstone.report import figures, wording

VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}
HOSTILE = "<script>alert('$x_1$')</script>"
PLACES = ("north", "south", "east", "west", "hills", "sea", "marshes", "woods", "fields", "island")
BIRDS = ("warbler", "finch", "tern", "gull", "thrush", "crane", "owl", "swift")
MANY = tuple(f"{bird} of the {place}" for bird in BIRDS for place in PLACES)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Document(HTMLParser):
    """Reads HTML strictly: every element is closed, in its order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1:]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def sections(self) -> list[str]:
        return [attributes["id"] or "" for tag, attributes in self.tags if tag == "section"]


def joined(text: str) -> str:
    """Without spaces: where elements meet, the page has some that the text has not."""
    return re.sub(r"\s+", "", text)


def written(run: Run) -> Document:
    path = report.write(run)
    assert path == run.report
    assert path.stat().st_size < 2.5e6
    return Document(path.read_text())


@pytest.fixture(scope="module")
def judged(make_run: Any) -> Run:
    return make_run()


@pytest.fixture(scope="module")
def document(judged: Run) -> Document:
    return written(judged)


@pytest.fixture(scope="module")
def many(make_run: Any) -> Run:
    return make_run(names=MANY, trained=False)


def test_every_row_and_number_of_the_verdict_appears(judged: Run, document: Document) -> None:
    text = document.text
    verdict = Verdict.load(judged.verdict)
    assert joined(verdict.sentence) in joined(text)
    for row in verdict.rows:
        assert row.accuracy and row.latency
        numbers = [
            row.name, row.reason, wording.per_cent(row.accuracy.top1), wording.megabytes(row.size_mb),
            wording.fixed(row.latency.median_ms, 3),
        ]  # fmt: skip
        if row.outcome != "baseline":
            assert row.speed
            numbers += [wording.fixed(row.accuracy.drop), wording.times(row.speed.ratio)]
        if row.shortlisted:
            assert row.speed
            assert row.speed.lower
            assert row.speed.upper
            numbers += [
                f"{wording.fixed(row.accuracy.drop)} ({wording.at_most(row.accuracy.drop_upper)})",
                f"{wording.at_least(row.accuracy.drop_lower)} to {wording.at_most(row.accuracy.drop_upper)}",
                wording.times_at_least(row.speed.lower),
                wording.times_between(row.speed.lower, row.speed.upper),
                *(d.reason for d in row.decisions),
            ]
        for number in numbers:
            assert joined(number) in joined(text)
    assert f"torchstone verify {judged.root.parent.name}/{judged.name}" in text
    for path, sha256 in verdict.evidence.items():
        assert path in text
        assert sha256 in text


def test_the_margin_is_about_the_metric_that_was_asked_for(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bound stands in the table, its change in the figure; of val, no bound is shown."""
    drawn: list[figures.Point] = []

    def scatter(points: list[figures.Point], *given: Any, **named: Any) -> str:
        drawn[:] = points
        return plain(points, *given, **named)

    plain = figures.scatter
    monkeypatch.setattr(figures, "scatter", scatter)
    run = make_run(budget=Budget(max_drop=2.0, min_speedup=4.0, metric="macro_f1"), trained=False)
    text, verdict = joined(written(run).text), Verdict.load(run.verdict)
    for row, point in zip(verdict.rows[1:], drawn[1:], strict=True):
        found = verdict.metric(row)
        assert found
        assert point.change == -found.difference
        assert point.change_interval == (
            (-(found.upper or 0), -(found.lower or 0)) if row.shortlisted else (point.change, point.change)
        )
        assert row.accuracy
        cell = f"{row.name}{wording.per_cent(row.accuracy.top1)}"
        if row.shortlisted:
            assert joined(f"{cell}{wording.fixed(found.difference)}({wording.at_most(found.upper)})") in text
            assert wording.at_most(found.upper) != wording.at_most(row.accuracy.drop_upper)
        else:
            assert joined(f"{cell}val{wording.fixed(found.difference)}~{row.latency and row.latency.median_ms}") in text
            assert joined(f"({wording.at_most(row.accuracy.drop_upper)})") not in text
    assert "changeofmacroF1,points" in text
    assert "MacroF1againstlatency" in text
    assert "changeoftop-1" not in text
    assert "DropofmacroF1" in text


def test_bounds_are_rounded_to_the_side_on_which_they_hold() -> None:
    assert wording.times_at_least(1.96, 1) == "1.9×"
    assert (wording.at_most(0.441), wording.at_least(0.449)) == ("0.45", "0.44")
    assert (wording.at_most(-0.441), wording.at_least(-0.441)) == (f"{wording.MINUS}0.44", f"{wording.MINUS}0.45")
    assert wording.at_most(0.1 + 0.2, 1) == wording.at_least(0.1 + 0.2, 1) == "0.3"
    assert wording.at_most(-0.001) == "0.00"
    assert wording.between((79.86, 99.21)) == "95 %: 79.8 to 99.3"


def test_all_sections_of_a_whole_run_are_there(document: Document) -> None:
    sections = ["verdict", "trade", "candidates", "errors", "training", "timing", "data", "machine", "verify"]
    assert document.sections() == sections
    links = [attributes["href"] for tag, attributes in document.tags if tag == "a"]
    assert links == [f"#{name}" for name in sections]


def test_ids_are_unique_and_references_lead_somewhere(judged: Run, document: Document) -> None:
    ids = [attributes["id"] for _, attributes in document.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    text = judged.report.read_text()
    for reference in re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text):
        assert reference in ids


def test_nothing_is_loaded_from_anywhere(judged: Run, document: Document) -> None:
    assert not [tag for tag, _ in document.tags if tag in ("script", "iframe", "object", "embed", "base")]
    for _, attributes in document.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
        assert "//" not in (attributes.get("style") or "")
    assert "@import" not in judged.report.read_text()
    assert not re.search(r"url\((?!#)", judged.report.read_text())


def test_names_from_outside_are_escaped(make_run: Any) -> None:
    names = (HOSTILE, *(f'<img src=x onerror="{index}">' for index in range(9)))
    run = make_run(names=names)
    verdict = json.loads(run.verdict.read_text())
    for row in verdict["rows"]:
        row["name"] = row["reason"] = HOSTILE
    run.verdict.write_text(json.dumps(verdict | {"sentence": HOSTILE}))
    (run.findings).write_text(
        json.dumps(
            [{"check": "x", "severity": "error", "message": HOSTILE, "hint": HOSTILE, "items": [], "evidence": {}}]
        )
    )
    document = written(run)
    assert not [tag for tag, _ in document.tags if tag == "script"]
    assert all(attributes.get("src", "data:") != "x" for _, attributes in document.tags)
    assert HOSTILE in document.text
    assert "<script" not in run.report.read_text()
    figure = run.report.read_text().partition('<svg class="figure"')[2].partition("</svg>")[0]
    assert html.escape(HOSTILE, quote=False) in figure, "no label is read as markup or as mathematics"


def test_figures_have_text_in_the_colours_of_the_page(judged: Run, document: Document) -> None:
    figures = re.findall(r"<svg class=\"figure\".*?</svg>", judged.report.read_text(), flags=re.DOTALL)
    assert len(figures) == 4 + 3 + 4  # two scatters in two widths, loss, top-1 and rate, control and candidates
    for figure in figures:
        assert re.search(r"<text [^>]*>[^<]", figure)
        assert not re.findall(r"#[0-9a-f]{6}\b", re.sub(r">[^<]*<", "><", figure)), "a colour that no theme can change"


def test_the_same_run_gives_the_same_report(judged: Run) -> None:
    first = report.write(judged).read_bytes()
    assert report.write(judged).read_bytes() == first


def test_mistakes_that_the_baseline_did_not_make_come_first(document: Document) -> None:
    assert document.text.index("Right in the baseline, wrong here") < document.text.index("Wrong in both")
    pictures = [attributes for tag, attributes in document.tags if tag == "img"]
    assert 0 < len(pictures) <= 24 + 5 * 8
    assert all(picture["alt"] for picture in pictures)
    assert all((picture["src"] or "").startswith("data:image/jpeg;base64,") for picture in pictures)


def test_without_a_winner_the_reasons_stand_at_the_top(make_run: Any) -> None:
    run = make_run(budget=Budget(max_drop=0.1, min_speedup=100), trained=False)
    verdict = Verdict.load(run.verdict)
    assert verdict.winner is None
    document = written(run)
    top = document.text[: document.text.index("Each candidate against the baseline")]
    for candidate_id in verdict.shortlist:
        assert verdict.row(candidate_id).name in top
        assert verdict.row(candidate_id).reason in top
    assert "chosen" not in document.text
    assert "training" not in document.sections()


def test_a_winner_without_a_bound_on_its_speed_says_so(make_run: Any) -> None:
    run = make_run(trained=False)
    stored = json.loads(run.verdict.read_text())
    row = next(one for one in stored["rows"] if one["candidate_id"] == stored["winner"])
    row["speed"] |= {"lower": None, "upper": None}
    run.verdict.write_text(json.dumps(stored))
    text = written(run).text
    assert "without a bound: see Timing" in text
    assert f"at least {wording.NONE}" not in text
    assert "no bound" in text[text.index("Candidates First the shortlist") :]


def test_a_void_session_says_so(make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(story="void", trained=False)
    text = written(run).text
    assert "Control: void." in text
    assert "another process was busy" in text
    _answers.verdict(Verdict.load(run.verdict), run, json=False)
    assert "the clock: another process was busy" in capsys.readouterr().out


def test_a_run_that_was_only_screened_has_a_report(make_run: Any) -> None:
    document = written(make_run(story="screened"))
    assert {"candidates", "errors"} <= set(document.sections())
    assert "val images are wrong" in document.text
    assert "only screened" in document.text
    assert not [name for name, attributes in document.tags if name == "details" and "open" in attributes]


def test_many_classes_show_pairs_instead_of_a_matrix(many: Run, document: Document) -> None:
    text = written(many).text
    assert "Confusion matrix" not in text
    assert "Most confused" in text
    assert "Recall by class: the worst 12 of" in text
    assert "Confusion matrix" in document.text


def test_missing_evidence_leaves_its_section_out(make_run: Any) -> None:
    run = make_run(trained=False)
    shutil.rmtree(run.root / "evidence")
    run.environment.unlink()
    document = written(run)
    assert not {"errors", "machine", "training"} & set(document.sections())
    assert joined(Verdict.load(run.verdict).sentence) in joined(document.text)


def test_images_that_were_moved_away_are_named(make_run: Any) -> None:
    run = make_run(trained=False)
    catalog = json.loads((run.data / "catalog.json").read_text())
    (run.data / "catalog.json").write_text(json.dumps(catalog | {"reader": "folder", "root": "/nowhere"}))
    text = written(run).text
    assert "not readable" in text
    assert "could not be read again" in text


def test_a_run_without_a_verdict_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"verdict\.json"):
        report.write(Run(tmp_path))
    assert not (tmp_path / "report.html").exists()


def test_no_page_scrolls_sideways(judged: Run, many: Run, tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: install chromium to check the report's layout")
    widths = [1280, 768, 390]
    pages = [report.write(run).read_text() for run in (judged, many)]
    frames = "".join(
        f'<iframe width="{width}" height="900" style="border:0" srcdoc="{html.escape(page)}"></iframe>'
        for width in widths
        for page in pages
    )
    script = """
    addEventListener("load", () => {
      document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {
        const root = frame.contentDocument.documentElement;
        return [root.clientWidth, root.scrollWidth];
      }));
    });"""
    outer = tmp_path / "outer.html"
    outer.write_text(f"<!DOCTYPE html><title></title>{frames}<script>{script}</script>")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000", "--dump-dom", outer.as_uri(),
    ]  # fmt: skip
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(.*?)</title>", finished.stdout)
    assert title, finished.stderr[-2000:]
    measured = json.loads(html.unescape(title.group(1)))
    assert measured == [[width, width] for width in widths for _ in pages]
