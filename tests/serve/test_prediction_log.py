"""The store's writer over real databases: rows are written once, counted where they are lost, and nobody waits."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from daemons import Postgres, eventually
from torchstone.core.errors import ConfigError, StorageError
from torchstone.serve.store import tables
from torchstone.serve.store import writer as writer_module
from torchstone.serve.store.writer import Writer
from torchstone.serve.values import new_id


def log(writer: Writer, *, id: str | None = None, label: int = 1, key: str | None = None) -> str:
    id = id or new_id()
    writer.predicted(
        id=id, time=time.time(), bundle="b" * 12, role="stable", key=key, image="0" * 64, label=label, confidence=0.9,
        milliseconds=5.0, error=None,
    )  # fmt: skip
    return id


def rows(url: str, table: sa.Table = tables.predictions) -> int:
    engine = tables.engine(url)
    with engine.connect() as connection:
        found = connection.scalar(sa.select(sa.func.count()).select_from(table))
    engine.dispose()
    return found or 0


@pytest.fixture
def url(tmp_path: Path) -> str:
    return tables.url_of(tmp_path / "state", None)


def test_what_is_logged_is_there_after_closing(url: str) -> None:
    writer = Writer(url)
    ids = [log(writer, key="somebody@example.org") for _ in range(2_500)]
    for id in ids[:10]:
        writer.feedback(id=id, label=3, time=time.time())
    writer.close(patience=60)
    assert (writer.written, writer.lost, writer.waiting) == (2_510, 0, 0)
    engine = tables.engine(url)
    with engine.connect() as connection:
        key = connection.scalar(sa.select(tables.predictions.c.key).where(tables.predictions.c.id == ids[0]))
        truth = connection.scalar(sa.select(tables.feedback.c.label).where(tables.feedback.c.id == ids[0]))
        files = b"".join(file.read_bytes() for file in Path(str(engine.url.database)).parent.iterdir())
    engine.dispose()
    assert truth == 3
    assert len(key or "") == 16
    assert b"somebody" not in files


def test_the_same_row_twice_is_there_once(url: str) -> None:
    writer = Writer(url)
    id = log(writer)
    log(writer, id=id)
    for label in (1, 2):
        writer.feedback(id=id, label=label, time=time.time())
    writer.close(patience=60)
    assert rows(url) == rows(url, tables.feedback) == 1


def test_a_full_buffer_loses_rows_and_counts_them(tmp_path: Path) -> None:
    nowhere = tmp_path / "file"
    nowhere.write_bytes(b"no database " * 1_000)
    writer = Writer(f"sqlite:///{nowhere}", limit=100)
    began = time.perf_counter()
    for _ in range(5_000):
        log(writer)
    assert time.perf_counter() - began < 1.0
    assert writer.lost == 4_900
    writer.close(patience=1)
    assert (writer.lost, writer.written) == (5_000, 0)
    assert writer.failures > 0


def test_a_database_that_others_hold_delays_rows_and_loses_none(url: str) -> None:
    writer = Writer(url)
    log(writer)
    assert eventually(lambda: writer.written == 1)
    holder = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    for _ in range(500):
        log(writer)
    time.sleep(1.0)
    assert writer.written == 1
    holder.execute("ROLLBACK")
    holder.close()
    assert eventually(lambda: writer.written == 501)
    writer.close()
    assert (rows(url), writer.lost) == (501, 0)


def test_a_row_that_the_database_refuses_takes_no_other_with_it(url: str) -> None:
    writer = Writer(url)
    for number in range(40):
        log(writer, label=2**70 if number == 17 else 1)  # SQLite's integers end at 2⁶³
    writer.close(patience=60)
    assert (writer.written, writer.lost) == (39, 1)
    assert rows(url) == 39


def test_threads_share_a_writer(url: str) -> None:
    writer = Writer(url)
    threads = [threading.Thread(target=lambda: [log(writer) for _ in range(300)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close(patience=60)
    assert rows(url) == 2_400


def test_old_rows_are_removed(url: str) -> None:
    writer = Writer(url, keep_days=1.0)
    log(writer)
    assert eventually(lambda: writer.written == 1)
    engine = tables.engine(url)
    with engine.begin() as connection:
        connection.execute(sa.update(tables.predictions).values(written=time.time() - 2 * 86_400))
    engine.dispose()
    log(writer)
    writer.sweep()
    writer.close(patience=60)
    assert rows(url) == 1


def test_all_old_rows_are_removed_by_and_by(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many have come together; no transaction is larger than it may be, and the table is not searched."""
    monkeypatch.setattr(writer_module, "SWEPT", 10)
    monkeypatch.setattr(writer_module, "PAUSE", 0.01)
    writer = Writer(url, keep_days=1.0)
    for _ in range(35):
        writer.feedback(id=log(writer), label=1, time=time.time())
    assert eventually(lambda: writer.written == 70)
    engine = tables.engine(url)
    with engine.begin() as connection:
        for table in (tables.predictions, tables.feedback):
            connection.execute(sa.update(table).values(written=time.time() - 2 * 86_400))
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN SELECT seq FROM {table.name} WHERE written < 1")
            assert f"USING COVERING INDEX {table.name}_written" in str(plan.all())
    engine.dispose()
    assert writer.sweep()
    assert (rows(url), rows(url, tables.feedback)) == (25, 25)
    log(writer)
    writer._sweep_at = 0.0
    assert eventually(lambda: (rows(url), rows(url, tables.feedback)) == (1, 0))
    writer.close(patience=60)


def test_an_address_that_is_refused_or_away_is_said_without_its_password() -> None:
    for url in ("postgres//u:hunter2@h/db", "postgresql://u:hunter2@h:port/db"):
        with pytest.raises(ConfigError, match="is no address of a database") as refused:
            tables.engine(url)
        assert "hunter2" not in str(refused.value)
    with pytest.raises(StorageError, match="cannot be used") as away:
        tables.create(tables.engine("postgresql://u:hunter2@127.0.0.1:1/db?password=hunter2"))
    assert "hunter2" not in str(away.value)


def test_addresses_that_keep_nothing_are_refused() -> None:
    for url in ("mysql://here/there", "sqlite://", "sqlite:///:memory:", "no address"):
        with pytest.raises(ConfigError):
            tables.engine(url)
    with pytest.raises(StorageError, match="cannot be used"):
        tables.create(tables.engine("postgresql://nobody@127.0.0.1:1/nothing"))


def test_postgresql_killed_and_started_again_under_load(postgres: Postgres) -> None:
    """Nobody who logs waits; what finds no room is counted; the writer goes on by itself, and no row is there twice."""
    writer = Writer(postgres.url, limit=2_000)
    slowest, sent = 0.0, 0
    stop = threading.Event()

    def load() -> None:
        nonlocal slowest, sent
        while not stop.wait(0.001):
            began = time.perf_counter()
            writer.feedback(id=log(writer), label=1, time=time.time())
            slowest = max(slowest, time.perf_counter() - began)
            sent += 2

    thread = threading.Thread(target=load)
    thread.start()
    try:
        assert eventually(lambda: writer.written > 200)
        postgres.kill()
        assert eventually(lambda: writer.lost > 100)
        before = writer.written
        postgres.begin()
        assert eventually(lambda: writer.written > before + 500)
    finally:
        stop.set()
        thread.join()
        writer.close(patience=60)
    assert writer.failures > 0
    assert writer.written + writer.lost == sent
    stored = rows(postgres.url) + rows(postgres.url, tables.feedback)
    assert stored == writer.written
    assert slowest < 0.5
