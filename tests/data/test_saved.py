"""A saved catalog as a source: its rows, its classes, and the images of the source that it was made of."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from made_images import fill, picture
from torchstone.core import registry, tables
from torchstone.core.contracts import Box
from torchstone.core.errors import DataError
from torchstone.core.values import Catalog
from torchstone.data.catalog import find_reader, read, source_digest


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    root = fill(tmp_path / "images", {"train/cat": 9, "train/dog": 9, "test/cat": 3, "test/dog": 3})
    return read(str(root), tmp_path / "out")


def header(catalog: Catalog) -> dict:
    return tables.header(catalog.table)


def test_it_says_the_same_as_the_source(catalog: Catalog, tmp_path: Path) -> None:
    assert find_reader(str(catalog.table)) == (str(catalog.table), "saved")
    again = read(str(catalog.table), tmp_path / "again")
    assert (again.fingerprint, again.classes) == (catalog.fingerprint, catalog.classes)
    first, second = (tables.read(one.table)[0] for one in (catalog, again))
    assert first.equals(second)


def test_a_catalog_of_a_catalog_reads_the_images_too(catalog: Catalog, tmp_path: Path) -> None:
    again = read(str(catalog.table), tmp_path / "again")
    third = read(str(again.table), tmp_path / "third")
    assert third.fingerprint == catalog.fingerprint


def test_rows_that_are_dropped_are_left_out_and_the_classes_stay(catalog: Catalog, tmp_path: Path) -> None:
    table, head = tables.read(catalog.table)
    decisions = ["drop" if item.startswith("train/cat/1") else "keep" for item in table["item"].to_list()]
    path = tmp_path / "cleaned.parquet"
    tables.write(path, table.with_columns(tables.frame({"decision": decisions})["decision"]), head)
    listing = registry.readers.get("saved").listing(str(path))
    assert "train/cat/1.png" not in listing.paths
    assert len(listing.paths) == 23
    assert listing.classes == ("cat", "dog")
    reader = registry.readers.get("saved")
    assert reader.image(str(path), "train/cat/2.png") == (tmp_path / "images/train/cat/2.png").read_bytes()


def test_groups_times_and_boxes_come_back(catalog: Catalog, tmp_path: Path) -> None:
    table, head = tables.read(catalog.table)
    boxes = [Box("a.jpg", 1.0, 2.0, 3.0, 4.0, 50, 60, "ann" if n % 2 else None) for n in range(len(table))]
    more = tables.frame(
        {
            "group": [f"patient {n // 3}" for n in range(len(table))],
            "time": ["2026-11-22"] * len(table),
            **{f"box_{name}": [getattr(box, name) for box in boxes] for name in Box._fields},
        },
        schema={"box_annotator": str},
    )
    path = tmp_path / "boxes.parquet"
    tables.write(path, table.with_columns(*more.get_columns()), head)
    listing = registry.readers.get("saved").listing(str(path))
    assert list(listing.boxes) == boxes
    assert listing.groups[3] == "patient 1"
    assert listing.times[0] == "2026-11-22"


def test_a_changed_image_makes_it_another_source(catalog: Catalog, tmp_path: Path) -> None:
    before = source_digest(str(catalog.table))
    assert source_digest(str(catalog.table)) == before
    picture(77).save(tmp_path / "images/train/dog/3.png")
    assert source_digest(str(catalog.table)) != before


def idx_files(root: Path) -> Path:
    """Returned is the file that holds the images."""
    for kind, shape in (("images-idx3", (30, 8, 8)), ("labels-idx1", (30,))):
        head = bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape)
        content = np.random.default_rng(1).integers(0, 2 if len(shape) == 1 else 256, shape, dtype=np.uint8)
        (root / f"train-{kind}-ubyte").write_bytes(head + content.tobytes())
    return root / "train-images-idx3-ubyte"


def cifar_batch(root: Path) -> Path:
    content = np.random.default_rng(1).integers(0, 256, (30, 3073), dtype=np.uint8)
    content[:, 0] = np.arange(30) % 2
    (root / "batches.meta.txt").write_text("cat\ndog\n")
    (root / "data_batch_1.bin").write_bytes(content.tobytes())
    return root / "data_batch_1.bin"


def boxes(root: Path) -> Path:
    (root / "annotations").mkdir()
    (root / "images").mkdir()
    picture(3).resize((200, 200)).save(root / "images" / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": n % 2, "bbox": [6 * n, 5 * n, 30, 40 + n]} for n in range(20)],
    }
    (root / "annotations" / "instances.json").write_text(json.dumps(content))
    return root / "images" / "a.png"


@pytest.mark.parametrize("make", [idx_files, cifar_batch, boxes])
def test_a_file_that_holds_many_images_makes_it_another_source_when_it_changes(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = tmp_path / "source"
    root.mkdir()
    file = make(root)
    first = read(str(root), tmp_path / "first")
    saved = read(str(first.table), tmp_path / "out").table  # a catalog of a catalog
    before = [source_digest(str(table)) for table in (first.table, saved)]
    assert before == [source_digest(str(table)) for table in (first.table, saved)]
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    after = [source_digest(str(table)) for table in (first.table, saved)]
    assert before[0] != after[0]
    assert before[1] != after[1]


def refused(catalog: Catalog, tmp_path: Path, **changes: object) -> str:
    """The message about a catalog whose header or columns were changed."""
    table, head = tables.read(catalog.table)
    path = tmp_path / "spoilt.parquet"
    for name, value in changes.items():
        if name in table.columns:
            table = table.drop(name) if value is None else table.with_columns(tables.frame({name: value})[name])
        else:
            head[name] = value
    tables.write(path, table, {name: value for name, value in head.items() if value is not None})
    with pytest.raises(DataError) as caught:
        read(str(path), tmp_path / "never")
    assert caught.value.hint
    assert not (tmp_path / "never").exists()
    return caught.value.message


def test_what_is_wrong_with_a_catalog_is_named(catalog: Catalog, tmp_path: Path) -> None:
    assert "no column path" in refused(catalog, tmp_path, path=None)
    assert "names no classes" in refused(catalog, tmp_path, classes=None)
    assert "names no classes" in refused(catalog, tmp_path, classes="cat")
    assert "its labels are not those" in refused(catalog, tmp_path, label=[5] * 24)
    assert "without a path or a label" in refused(catalog, tmp_path, label=[None, *[0] * 23])
    assert "unknown reader" in refused(catalog, tmp_path, reader="nothing")


def test_a_catalog_that_is_its_own_source_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    own = str(tmp_path / "spoilt.parquet")
    assert "leads from catalog to catalog" in refused(catalog, tmp_path, root=own, reader="saved")


def test_a_table_of_somebody_else_is_no_catalog(tmp_path: Path) -> None:
    saved = registry.readers.get("saved")
    path = tmp_path / "table.parquet"
    tables.frame({"path": ["a.jpg"], "label": [0]}).write_parquet(path)
    assert not saved.accepts(str(path))
    path.write_bytes(b"PAR1 nonsense PAR1")
    assert not saved.accepts(str(path))
    assert not saved.accepts(str(tmp_path))
    assert not saved.accepts("digits")
