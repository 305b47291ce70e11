"""Processes that order at the same moment, each with an engine and threads of its own, kept for all repetitions.

They are forked from a process that never had a second thread (multiprocessing's fork server): starting them costs next
to nothing, and they inherit no lock of a thread of pytest's.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from uuid import UUID

from sqlalchemy.orm import Session, sessionmaker

import broker.database
from accounting.holds import GrantLedger
from broker.database import database_now
from broker.orders import Choice, place_order
from web.queue import QueuedJobs

PROCESSES, THREADS = 8, 8
AT_ONCE = PROCESSES * THREADS
# Seconds until all have come to the start, and until all have an answer.
PATIENCE = 60.0


@dataclass(frozen=True)
class Answer:
    """What came of one order: its id, or the class and the words of what it was refused with."""

    choice: Choice
    order_id: UUID | None
    refusal: str | None
    words: str


@dataclass(frozen=True)
class Racers:
    """The processes, by our ends of their pipes."""

    pipes: tuple[Connection, ...]

    def order(self, choices: Sequence[Choice]) -> list[Answer]:
        """All these orders at the same moment: as many as there are threads."""
        assert len(choices) == AT_ONCE
        for number, pipe in enumerate(self.pipes):
            pipe.send(choices[number::PROCESSES])
        answers: list[Answer] = []
        for pipe in self.pipes:
            assert pipe.poll(PATIENCE), "a process does not answer"
            answers += pipe.recv()
        return answers


@contextmanager
def racing(url: str) -> Iterator[Racers]:
    """Start the processes on the database; they end with the block."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    start = context.Barrier(AT_ONCE)
    pipes, processes = [], []
    for _ in range(PROCESSES):
        mine, theirs = context.Pipe()
        process = context.Process(target=_run, args=(url, theirs, start), daemon=True)
        process.start()
        theirs.close()
        pipes.append(mine)
        processes.append(process)
    try:
        yield Racers(tuple(pipes))
    finally:
        for pipe in pipes:
            pipe.close()  # which is the sign to end
        for process in processes:
            process.join(PATIENCE)


def _run(url: str, pipe: Connection, start: Barrier) -> None:
    """One process: takes orders from its pipe and answers what came of them, until the pipe is closed."""
    engine = broker.database.engine(url, pool_size=THREADS, application_name="leeway racer")
    sessions = broker.database.sessions(engine)
    with ThreadPoolExecutor(THREADS) as threads:
        while (choices := _next(pipe)) is not None:
            tries = [(choice, threads.submit(_order, sessions, start, choice)) for choice in choices]
            pipe.send([_answer(choice, tried.exception() or tried.result()) for choice, tried in tries])
    engine.dispose()


def _next(pipe: Connection) -> list[Choice] | None:
    try:
        choices: list[Choice] = pipe.recv()
    except EOFError:
        return None
    return choices


def _order(sessions: sessionmaker[Session], start: Barrier, choice: Choice) -> UUID:
    with sessions() as session:
        session.connection()  # to connect is no part of the race
    start.wait(PATIENCE)
    with sessions.begin() as session:
        now = database_now(session)
        return place_order(session, choice, ledger=GrantLedger(), jobs=QueuedJobs(), actor="racer", now=now).id


def _answer(choice: Choice, result: UUID | BaseException) -> Answer:
    if isinstance(result, UUID):
        return Answer(choice, result, None, "")
    return Answer(choice, None, type(result).__name__, str(result))
