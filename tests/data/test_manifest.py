"""Tables of images: what their columns mean, and an error that names the row for what they cannot mean."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from torchstone.core import tables
from torchstone.core.contracts import Listing
from torchstone.core.errors import DataError
from torchstone.data import catalog
from torchstone.data.readers.manifest import Manifest
from torchstone.data.sources import find_reader, source_digest

MakeFolder = Callable[..., Path]

ROWS = [
    {"path": "a/0.png", "label": "cat", "split": "train", "group": "p1", "time": "2026-03"},
    {"path": "a/1.png", "label": "cat", "split": "test", "group": "p1", "time": "2026-03-02T10:00:00"},
    {"path": "b/0.png", "label": "dog", "split": "train", "group": "p2", "time": "2026-03-02T10:00:00+02:00"},
    {"path": "b/1.png", "label": "dog", "split": "test", "group": "", "time": ""},
]


@pytest.fixture
def images(make_folder: MakeFolder) -> Path:
    return make_folder({"a": 2, "b": 2})


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix in (".csv", ".tsv"):
        delimiter = "," if path.suffix == ".csv" else "\t"
        lines = [delimiter.join(rows[0]), *(delimiter.join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".parquet":
        tables.write(path, tables.frame({name: [row[name] for row in rows] for name in rows[0]}))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(text: str, images: Path, name: str = "labels.csv") -> Listing:
    (images / name).write_text(text)
    return Manifest().listing(str(images / name))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "ndjson", "parquet"])
def test_every_format_gives_the_same_listing(images: Path, suffix: str) -> None:
    path = write(images / f"labels.{suffix}", ROWS)
    assert find_reader(path) == (path, "manifest")
    listing = Manifest().listing(path)
    assert listing.classes == ("cat", "dog")
    assert list(listing.paths) == [row["path"] for row in ROWS]
    assert list(listing.labels) == [0, 0, 1, 1]
    assert list(listing.parts) == ["train", "test", "train", "test"]
    assert list(listing.groups) == ["p1", "p1", "p2", None]
    assert list(listing.times) == ["2026-03-01T00:00:00", "2026-03-02T10:00:00", "2026-03-02T08:00:00+00:00", None]
    assert Manifest().image(path, "b/1.png") == (images / "b" / "1.png").read_bytes()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_what_the_source_alone_understands_is_kept(images: Path, tmp_path: Path, suffix: str) -> None:
    more = [
        {**row, "scanner": scanner, "dose": dose, "width": 7, "notes": "x" * 300}
        for row, scanner, dose in zip(ROWS, ("A", "B", "", "A"), (0.5, 2, 1, 0.25), strict=True)
    ]
    path = write(images / f"labels.{suffix}", more)
    table, header = tables.read(catalog.read(path, tmp_path / "data").table)
    assert table["scanner"].to_list() == ["A", "B", None, "A"]
    assert table["dose"].to_list() == [0.5, 2.0, 1.0, 0.25]
    assert table["source_width"].to_list() == [7.0] * 4, "the catalog's own width is that of the image"
    assert "notes" not in table.columns, "prose is nothing to slice by"
    again, kept = tables.read(catalog.read(str(tmp_path / "data" / "catalog.parquet"), tmp_path / "again").table)
    assert kept["further"] == header["further"] == ["scanner", "dose", "source_width"]
    assert again.select("scanner", "dose", "source_width").equals(table.select("scanner", "dose", "source_width"))


def test_a_catalog_is_made_of_it(images: Path, tmp_path: Path) -> None:
    made = catalog.read(write(images / "labels.csv", ROWS), tmp_path / "data")
    table, _ = tables.read(made.table)
    assert made.reader == "manifest"
    assert table["group"].to_list() == ["p1", "p1", "p2", None]
    assert table["part"].to_list() == ["train", "test", "train", "test"]


def test_other_names_of_the_columns_and_other_delimiters(images: Path) -> None:
    listing = read("\ufeffPatient; Image_Path ;CLASS;Subset\n7;a/0.png;x;training\n8;.\\b\\0.png;y;valid\n", images)
    assert list(listing.paths) == ["a/0.png", "b/0.png"]
    assert list(listing.groups) == ["7", "8"]
    assert list(listing.parts) == ["train", "val"]
    assert listing.times == ()


def test_cells_with_delimiters_quotes_and_line_ends(images: Path) -> None:
    (images / "a" / "x, y.png").write_bytes((images / "a" / "0.png").read_bytes())
    listing = read('path,label\n"a/x, y.png","big, ""red"""\n\nb/0.png,"two\nlines"\n', images)
    assert listing.classes == ('big, "red"', "two\nlines")
    assert listing.paths[0] == "a/x, y.png"


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_numbers_are_labels_in_their_order(images: Path, suffix: str) -> None:
    rows = [{"path": row["path"], "label": label} for row, label in zip(ROWS, (10, 9, 9, 10), strict=True)]
    listing = Manifest().listing(write(images / f"labels.{suffix}", rows))
    assert listing.classes == ("9", "10")
    assert list(listing.labels) == [1, 0, 0, 1]


def test_numbers_count_the_lines_of_a_classes_file(images: Path) -> None:
    (images / "classes.txt").write_text("cat\ndog\nfox\n")
    listing = read("path,label\na/0.png,2\nb/0.png,0\n", images)
    assert listing.classes == ("cat", "fox")
    assert list(listing.labels) == [1, 0]
    (finding,) = listing.findings
    assert finding.items == ("dog",)


def test_a_classes_file_gives_the_order_of_names(images: Path) -> None:
    (images / "classes.txt").write_text("dog\ncat\n")
    assert read("path,label\na/0.png,cat\nb/0.png,dog\n", images).classes == ("dog", "cat")
    with pytest.raises(DataError, match=r"'classes.txt' .* does not hold the label 'fox'"):
        read("path,label\na/0.png,cat\nb/0.png,fox\n", images)


def test_parquet_with_types(images: Path) -> None:
    frame = {
        "path": ["a/0.png", "b/0.png"],
        "label": [1.0, 2.0],
        "time": [datetime(2026, 3, 1, 12), None],
        "group": [7, None],
    }
    tables.write(images / "labels.parquet", tables.frame(frame))
    listing = Manifest().listing(str(images / "labels.parquet"))
    assert listing.classes == ("1", "2")
    assert list(listing.times) == ["2026-03-01T12:00:00", None]
    assert list(listing.groups) == ["7", None]
    tables.write(images / "labels.parquet", tables.frame({**frame, "time": [date(2026, 3, 1), None]}))
    assert list(Manifest().listing(str(images / "labels.parquet")).times) == ["2026-03-01T00:00:00", None]


class TestPaths:
    def test_an_absolute_path_may_lead_into_the_folder(self, images: Path) -> None:
        listing = read(f"path,label\n{images}/a/0.png,x\nb/0.png,y\n", images)
        assert list(listing.paths) == ["a/0.png", "b/0.png"]

    @pytest.mark.parametrize("path", ["../secret.png", "a/../../secret.png", "/etc/hostname", "C:\\x.png", "..\\x.png"])
    def test_a_path_outside_is_refused_with_its_row(self, images: Path, path: str) -> None:
        (images.parent / "secret.png").touch()
        with pytest.raises(DataError, match=r"line 3 of 'labels.csv' names .*, which is not below") as caught:
            read(f"path,label\na/0.png,x\n{path},y\n", images)
        assert caught.value.hint

    def test_a_manifest_in_the_wrong_place_is_told_so(self, images: Path) -> None:
        with pytest.raises(DataError, match=r"none of the first 2 files .* the first would be '.*/images/x/0\.png'"):
            read("path,label\nx/0.png,x\nx/1.png,y\n", images)

    def test_a_file_that_is_missing_is_left_to_the_catalog(self, images: Path) -> None:
        listing = read("path,label\na/0.png,x\nb/0.png,y\nb/7.png,y\n", images)
        assert len(listing.paths) == 3
        with pytest.raises(OSError, match="No such file"):
            Manifest().image(str(images / "labels.csv"), "b/7.png")

    def test_a_folder_or_an_archive_with_a_manifest(self, images: Path, tmp_path: Path) -> None:
        write(images / "manifest.csv", ROWS)
        assert find_reader(str(images)) == (str(images), "manifest")
        packed = tmp_path / "packed.zip"
        with zipfile.ZipFile(packed, "w") as archive:
            for file in sorted(images.rglob("*")):
                archive.write(file, file.relative_to(tmp_path))
        assert find_reader(str(packed)) == (str(packed), "manifest")
        assert Manifest().listing(str(packed)).paths == Manifest().listing(str(images)).paths
        assert Manifest().image(str(packed), "a/0.png") == (images / "a" / "0.png").read_bytes()

    def test_a_changed_picture_is_another_source(self, images: Path) -> None:
        path = write(images / "labels.csv", ROWS)
        before = source_digest(path)
        (images / "b" / "1.png").write_bytes((images / "a" / "0.png").read_bytes())
        assert source_digest(path) != before


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "no column 'path'"),
            ("name,label\na/0.png,x\n", "no column 'path', only 'name', 'label'"),
            ("path,name\na/0.png,x\n", "no column 'label'"),
            ("path,label\n", "no rows"),
            ("path,label\na/0.png,x\n,y\n", "line 3 .* no path"),
            ("path,label\na/0.png,x\nb/0.png,\n", "line 3 .* no label"),
            ("path,label\na/0.png,x\nb/0.png\n", "line 3 .* no label"),
            ("path,label\na/0.png,x\nb/0.png,y,z\n", "line 3 .* 3 cells under 2 columns"),
            ("path,label,path\na/0.png,x,a\n", "two columns called 'path'"),
            ("path,label\na/0.png,x\nb/0.png,x\n", "only one class, 'x'"),
            ("path,label,split\na/0.png,x,train\nb/0.png,y,tset\n", "line 3 .* part 'tset'"),
            ("path,label,split\na/0.png,x,train\nb/0.png,y,\n", "line 3 .* no part"),
            ("path,label,time\na/0.png,x,yesterday\nb/0.png,y,\n", "line 2 .* time 'yesterday'"),
            ("path,label\na/0.png,x\na/0.png,y\n", "line 3 .* 'y', line 2 'x'"),
            ('path,label\n"a/0.png,x\n', "damaged"),
        ],
    )
    def test_csv(self, images: Path, text: str, reason: str) -> None:
        with pytest.raises(DataError, match=reason) as caught:
            read(text, images)
        assert caught.value.hint

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('{"path": "a/0.png", "label": "x"}\n{"path": ', "line 2 .* no JSON"),
            ('["a/0.png", "x"]\n', "line 1 .* no JSON object"),
            ('{"path": "a/0.png", "label": ["x", "y"]}\n', r"line 1 .* label \['x', 'y'\]"),
            ('{"path": "a/0.png", "label": true}\n', "line 1 .* label True"),
            ('{"path": "a/0.png", "label": 1.5}\n', r"line 1 .* label 1.5"),
            ('{"path": "a/0.png", "label": null}\n', "line 1 .* no label"),
            ('{"path": 7, "label": "x"}\n', "line 1 .* no path"),
            ('{"path": "a/0.png", "label": "x", "group": {}}\n{"path": "b/0.png", "label": "y"}\n', "group {}"),
        ],
    )
    def test_json_lines(self, images: Path, text: str, reason: str) -> None:
        with pytest.raises(DataError, match=reason) as caught:
            read(text, images, "labels.jsonl")
        assert caught.value.hint

    def test_text_in_another_encoding(self, images: Path) -> None:
        (images / "labels.csv").write_bytes("path,label\na/0.png,café\n".encode("latin-1"))
        with pytest.raises(DataError, match="not UTF-8"):
            Manifest().listing(str(images / "labels.csv"))

    def test_a_row_that_repeats_another_is_left_out_and_reported(self, images: Path) -> None:
        listing = read("path,label\na/0.png,x\nb/0.png,y\na/0.png,x\n", images)
        assert list(listing.paths) == ["a/0.png", "b/0.png"]
        (finding,) = listing.findings
        assert finding.evidence == {"rows": 1}
        assert finding.items == ("a/0.png",)

    @hypothesis.settings(
        max_examples=100, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], derandomize=True
    )
    @hypothesis.given(content=st.binary(max_size=300), suffix=st.sampled_from(["csv", "tsv", "jsonl"]))
    def test_any_bytes_raise_nothing_but_a_users_error(self, images: Path, content: bytes, suffix: str) -> None:
        header = b"path,label\n" if suffix == "csv" else b""
        (images / f"any.{suffix}").write_bytes(header + content)
        with pytest.raises(DataError):
            Manifest().listing(str(images / f"any.{suffix}"))
