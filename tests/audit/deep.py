"""Catalogs with feature vectors, for the tests of the checks that compare what is in the pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from torchstone.audit import AuditContext
from torchstone.audit.features import Features
from torchstone.core import tables
from torchstone.core.registry import readers
from torchstone.core.values import Catalog
from torchstone.data.preprocess import decode, default_preprocess


def pixels_of(catalog: Catalog) -> Features:
    """The grey pixels of images of one size as their features, on 0..1."""
    reader = readers.get(catalog.reader)
    rules = default_preprocess(8)
    paths = tables.read(catalog.table)[0]["path"].to_list()
    grey = [decode(reader.image(catalog.root, path), rules)[..., 0].ravel() for path in paths]
    return Features("pixels", np.divide(np.stack(grey), 255, dtype=np.float32))


def with_columns(catalog: Catalog, **columns: Any) -> Catalog:
    """A catalog with other values in some columns of its table, which lies beside the first one's."""
    table, header = tables.read(catalog.table)
    changed = {name: columns.get(name, table[name]) for name in table.columns}
    number = sum(1 for _ in catalog.table.parent.glob("*.parquet"))
    place = catalog.table.with_name(f"changed-{number}.parquet")
    tables.write(place, tables.frame(changed), header)
    return catalog.model_copy(update={"table": place})


def context_of(catalog: Catalog, features: Features | None) -> AuditContext:
    return AuditContext(catalog, (), None, features)


def labels_of(catalog: Catalog) -> np.ndarray:
    return tables.read(catalog.table)[0]["label"].to_numpy().astype(np.intp)
