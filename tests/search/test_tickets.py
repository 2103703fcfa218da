from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy

from torchstone.search.tickets import Ticket, Tickets, host, is_dead, own_name

TAKES_ONE = """
import sys, time
import sqlalchemy
from torchstone.search.tickets import Tickets
tickets = Tickets(sqlalchemy.create_engine(sys.argv[1]), sys.argv[2], 600)
print(tickets.take(1).number, flush=True)
time.sleep(600)
"""
Opened = Callable[[float], Tickets]


@pytest.fixture
def opened(database: str, request: pytest.FixtureRequest) -> Opened:
    """The tickets of one study, as one more worker sees them."""
    url = sqlalchemy.make_url(database)
    if url.get_backend_name() == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    engines: list[sqlalchemy.Engine] = []

    def open_one(takeover: float) -> Tickets:
        options = {"connect_args": {"timeout": 60}} if url.get_backend_name() == "sqlite" else {}
        engines.append(sqlalchemy.create_engine(url, **options))
        return Tickets(engines[-1], request.node.name, takeover)

    request.addfinalizer(lambda: [engine.dispose() for engine in engines])
    return open_one


def all_of(tickets: Tickets, trials: int) -> list[int]:
    """Take and close tickets until there are none."""
    found = []
    while (ticket := tickets.take(trials)) is not None:
        found.append(ticket.number)
        assert tickets.close(ticket)
    return found


def test_every_ticket_goes_to_one_worker(opened: Opened) -> None:
    workers = [opened(600) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda worker: all_of(worker, 40), workers))
    assert sorted(number for numbers in taken for number in numbers) == list(range(40))
    assert workers[0].held_by_others() == 0


def test_a_silent_workers_ticket_is_taken_over_once(opened: Opened) -> None:
    silent, *others = (opened(2) for _ in range(5))
    lost = silent.take(1)
    assert lost is not None
    assert [other.take(1) for other in others] == [None] * 4
    assert others[0].held_by_others() == 1
    time.sleep(2.2)
    with ThreadPoolExecutor(4) as pool:
        taken = [ticket for ticket in pool.map(lambda other: other.take(1), others) if ticket is not None]
    assert taken == [Ticket(number=0, attempt=2)]
    assert not silent.is_mine(lost)
    assert not silent.close(lost)


def test_signs_of_life_keep_a_ticket(opened: Opened) -> None:
    worker, other = opened(2), opened(2)
    ticket = worker.take(1)
    assert ticket is not None
    with worker.alive(ticket) as lost:
        time.sleep(3)
        assert other.take(1) is None
        assert not lost.is_set()


def test_who_lost_its_ticket_is_told(opened: Opened) -> None:
    worker, other = opened(2), opened(0)
    ticket = worker.take(1)
    assert ticket is not None
    with worker.alive(ticket) as lost:
        time.sleep(0.01)
        assert other.take(1) is not None
        assert lost.wait(timeout=10)


def test_a_ticket_given_back_is_taken_at_once(opened: Opened) -> None:
    worker, other = opened(600), opened(600)
    ticket = worker.take(1)
    assert ticket is not None
    worker.give_back(ticket)
    assert other.take(1) == Ticket(number=0, attempt=1), "who was interrupted did not die over it"


def test_attempts_count_until_an_epoch_is_finished(opened: Opened) -> None:
    attempts = []
    for finished in (False, False, True, False):
        worker = opened(0)
        time.sleep(0.01)
        ticket = worker.take(1)
        assert ticket is not None
        attempts.append(ticket.attempt)
        if finished:
            worker.got_further(ticket)
    assert attempts == [1, 2, 3, 2]


@pytest.mark.slow
def test_who_trains_for_long_got_further(opened: Opened) -> None:
    worker = opened(2)
    for _ in range(3):
        ticket = worker.take(1)
        assert ticket is not None
        worker._held.clear()  # as if it had died
        time.sleep(2.2)
    last = opened(2).take(1)
    assert last is not None
    assert last.attempt == 4
    again = opened(2)
    time.sleep(2.2)
    ticket = again.take(1)
    assert ticket is not None
    with again.alive(ticket):
        time.sleep(3)
    time.sleep(2.2)
    assert opened(2).take(1) == Ticket(number=0, attempt=2)


def test_a_killed_worker_is_known_at_once_where_it_ran(
    opened: Opened, database: str, request: pytest.FixtureRequest
) -> None:
    url = database.replace("postgresql://", "postgresql+psycopg://")
    command = [sys.executable, "-c", TAKES_ONE, url, request.node.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        here = opened(600)
        assert here.take(1) is None
        process.send_signal(signal.SIGKILL)
    assert here.take(1) == Ticket(number=0, attempt=2)


def test_only_processes_of_this_machine_are_known_to_be_dead() -> None:
    where, number, began = own_name().rsplit("/", 2)
    assert not is_dead(own_name())
    assert is_dead(f"{where}/{number}/{int(began) - 1}"), "its number is another process's now"
    assert not is_dead(f"elsewhere/{where.split('/')[1]}/{number}/{int(began) - 1}")
    assert host(own_name()).endswith(f":{number}")
