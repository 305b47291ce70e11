"""What lies outside the database tells a copy from the living one; `leeway resume` makes Leeway act again."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from broker.claims import claim
from broker.database import Database
from broker.embedded import APPLICATION_ROLE, OWNER_ROLE, EmbeddedServer
from broker.errors import Conflict, NotFound, SetupError
from broker.models.audit import Finding
from broker.models.federation import Installation, Site
from broker.models.leases import Lease, LeaseState
from broker.restored import Standing, begin_observing, look
from broker.resuming import readiness, resume
from tests.world import World, make_world, people
from web import compose
from web.app import make_app
from web.clock import Clock
from web.compose import Services, services
from web.settings import load_settings

SHORT = timedelta(milliseconds=200)


@contextlib.contextmanager
def started(database: Database, folder: Path) -> Iterator[Services]:
    """As `leeway serve` begins."""
    folder.mkdir(exist_ok=True)
    settings = load_settings(data_dir=folder, sweep_interval=1, call_timeout=SHORT, settle_time=SHORT, first_look=0.01)
    with services(settings, replace(database, is_embedded=False)) as found:
        yield found


@pytest.fixture
def made(database: Database, sessions: sessionmaker[Session], tmp_path: Path) -> Iterator[Services]:  # noqa: ARG001 - cleans up
    with started(database, tmp_path / "data") as found:
        yield found


@pytest.fixture
def world(sessions: sessionmaker[Session], made: Services) -> Iterator[World]:
    """A federation whose sites the real composition can open."""
    with make_world(sessions, doors=made.doors) as found:
        yield found


def standing(sessions: sessionmaker[Session]) -> Standing:
    with sessions.begin() as session:
        found = look(session)
    assert found is not None
    return found


def late_enough(world: World, made: Services) -> None:
    """Wait until a listing counts, and make one of every site."""
    with world.sessions() as session:
        session.execute(select(func.pg_sleep(0.5)))
    for site in readiness(made.tools)[1]:
        world.observe(site.site_id)


# --- the id ------------------------------------------------------------------------------------------------------


def test_a_first_start_acts_and_writes_both_files(made: Services) -> None:
    assert UUID(made.marks.id_file.read_text().strip()) == made.tools.installation
    assert made.marks.position_file.stat().st_mode & 0o077 == 0
    assert standing(made.sessions) == Standing(made.tools.installation, None, None)


def test_a_database_of_another_installation_is_only_observed(
    made: Services, database: Database, tmp_path: Path
) -> None:
    other = uuid4()
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "installation").write_text(f"{other}\n")
    with started(database, folder) as found:
        reason = standing(found.sessions).reason
        assert found.tools.installation == made.tools.installation
        assert f"belongs to installation {made.tools.installation}" in str(reason)
        assert f"says {other}" in str(reason)
        assert (folder / "installation").read_text() == f"{other}\n", "only a person may say which is right"
    since = standing(made.sessions).observing_since
    with started(database, folder) as found:
        assert standing(found.sessions).observing_since == since, "another start is no news"
        token = found.settings.token_file
        with TestClient(make_app(found), "http://127.0.0.1:8642") as client:
            client.headers["Authorization"] = f"Bearer {token.read_text().strip()}"
            shown = client.get("/api/v1/installation").json()
            assert (shown["id"], shown["reason"]) == (str(made.tools.installation), reason)
            assert client.get("/api/v1/health").json()["observing"] is True
            assert client.post("/api/v1/installation/resume", json={}).json() == {"leases": 0}
            assert client.get("/api/v1/health").json()["observing"] is False
            assert client.get("/api/v1/installation").json()["reason"] is None
        assert (folder / "installation").read_text() == f"{made.tools.installation}\n"
    with started(database, folder) as found:
        assert standing(found.sessions).observing_since is None


def test_a_start_waits_for_one_that_froze_in_the_midst_of_its_own(made: Services, database: Database) -> None:
    """Longer than a lock is waited for (3 s): PostgreSQL ends the frozen one's transaction after 10 s."""

    def freeze() -> None:
        with made.sessions.begin() as session:
            session.execute(select(func.pg_advisory_xact_lock(func.hashtext("installation"))))
            held.set()
            time.sleep(4)

    held = threading.Event()
    frozen = threading.Thread(target=freeze)
    frozen.start()
    held.wait()
    with started(database, made.settings.data_dir) as found:
        assert standing(found.sessions).observing_since is None
    frozen.join()


def test_a_new_data_directory_learns_the_id(made: Services, database: Database, tmp_path: Path) -> None:
    with started(database, tmp_path / "new") as found:
        assert found.marks.id_file.read_text() == f"{made.tools.installation}\n"
        assert standing(found.sessions).observing_since is None


@pytest.mark.usefixtures("made")
def test_a_damaged_id_is_refused(database: Database, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "installation").write_bytes(b"\xff")
    with pytest.raises(SetupError, match="holds no installation id"), started(database, tmp_path / "odd"):
        pass


# --- the position ------------------------------------------------------------------------------------------------


def set_back(made: Services, bytes_: int) -> None:
    """As if the log had come so much farther before the files were replaced by a copy."""
    cluster, position, inode = made.marks.position_file.read_text().split()
    made.marks.position_file.write_text(f"{cluster} {int(position) + bytes_} {inode}\n")


def test_a_log_that_has_gone_back_is_noticed_at_the_start(made: Services, database: Database) -> None:
    set_back(made, 10**9)
    with started(database, made.settings.data_dir) as found:
        assert "replaced by an older copy" in str(standing(found.sessions).reason)


def test_a_log_that_has_gone_back_is_noticed_while_it_runs(made: Services) -> None:
    with made.sessions.begin() as session:
        made.marks.keep_position(session)
    assert standing(made.sessions).observing_since is None
    set_back(made, 10**9)
    with made.sessions.begin() as session:
        made.marks.keep_position(session)
    assert standing(made.sessions).observing_since is not None


def test_every_machines_file_catches_up_while_leeway_observes(
    made: Services, database: Database, tmp_path: Path
) -> None:
    """Else a worker elsewhere would find the log behind its own file once more, after the resume."""
    with started(database, tmp_path / "elsewhere") as elsewhere:
        set_back(elsewhere, 10**9)
        with made.sessions.begin() as session:
            begin_observing(session, "a test")
        for one in (made, elsewhere):
            with one.sessions.begin() as session:
                one.marks.keep_position(session)
        resume(made.tools, actor="tests")
        with elsewhere.sessions.begin() as session:
            elsewhere.marks.keep_position(session)
    assert standing(made.sessions).observing_since is None


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"7000 many 1\n", b"7000 12\n"])
def test_a_damaged_position_cannot_vouch_for_the_files(made: Services, content: bytes) -> None:
    made.marks.position_file.write_bytes(content)
    with made.sessions.begin() as session:
        made.marks.keep_position(session)
    assert "is damaged" in str(standing(made.sessions).reason)


@pytest.mark.parametrize("content", [None, "7000 99999999999999 {inode}\n"])
def test_a_position_that_is_away_or_of_another_cluster_proves_nothing(made: Services, content: str | None) -> None:
    if content is None:
        made.marks.position_file.unlink()
    else:
        made.marks.position_file.write_text(content.format(inode=made.marks.position_file.stat().st_ino))
    with made.sessions.begin() as session:
        made.marks.keep_position(session)
    assert standing(made.sessions).observing_since is None
    assert made.marks.position_file.read_text() != content


def test_a_copy_of_the_position_is_told_from_the_file_itself(made: Services) -> None:
    """The whole data directory was brought back: all that lies in it is of the same age, and agrees."""
    file = made.marks.position_file
    shutil.copy2(file, file.with_name("backup"))
    file.with_name("backup").replace(file)
    with made.sessions.begin() as session:
        made.marks.keep_position(session)
    assert "position is a copy" in str(standing(made.sessions).reason)


@pytest.fixture
def data_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data directory with an embedded server of its own, of which nothing is left."""
    with tempfile.TemporaryDirectory(prefix="lw") as place:
        sockets = Path(place) / "run"
        sockets.mkdir(mode=0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(sockets))
        yield Path(place) / "data"
        EmbeddedServer(Path(place) / "data" / "postgres").stop(even_if_used=True)


def test_an_older_copy_of_the_servers_files_is_noticed_at_the_start(data_dir: Path) -> None:
    settings = load_settings(data_dir=data_dir, call_timeout=SHORT, settle_time=SHORT)
    cluster = data_dir / "postgres" / "cluster"
    with compose.database(settings) as found, services(settings, found):
        pass
    shutil.copytree(cluster, data_dir / "copy", symlinks=True)
    with compose.database(settings) as found, services(settings, found) as made:
        people(made.sessions, grant="10 EUR")
        assert standing(made.sessions).observing_since is None, "a restart is none"
        with made.sessions.begin() as session:
            made.marks.keep_position(session)
    shutil.rmtree(cluster)
    (data_dir / "copy").rename(cluster)
    with compose.database(settings) as found, services(settings, found) as made:
        assert "replaced by an older copy" in str(standing(made.sessions).reason)


def test_a_worker_that_lives_while_the_servers_files_are_replaced_claims_nothing(data_dir: Path) -> None:
    """The server ended, so whoever asks it again has a new connection, and looks where the log ends."""
    settings = load_settings(data_dir=data_dir, call_timeout=SHORT, settle_time=SHORT)
    server = EmbeddedServer(data_dir / "postgres")
    data_dir.mkdir(mode=0o700)
    server.start()
    found = Database(server.url(APPLICATION_ROLE), server.url(OWNER_ROLE), is_embedded=True)
    with services(settings, found) as made, make_world(made.sessions, doors=made.doors) as world:
        first = world.leases(world.order(name="first"))[0]
        server.stop()
        shutil.copytree(server.cluster, data_dir / "copy", symlinks=True)
        server.start()
        world.order(name="second")
        with made.sessions.begin() as session:
            made.marks.keep_position(session)
        assert claim(made.sessions, first, length=SHORT) is not None
        server.stop()
        shutil.rmtree(server.cluster)
        (data_dir / "copy").rename(server.cluster)
        server.start()
        assert claim(made.sessions, first, length=SHORT) is None
        assert "replaced by an older copy" in str(standing(made.sessions).reason)
    server.stop()


# --- resume ------------------------------------------------------------------------------------------------------


def test_resume_waits_for_a_listing_begun_late_enough(world: World, made: Services) -> None:
    with made.sessions.begin() as session:
        begin_observing(session, "a test")
        session.execute(update(Site).values(next_listing_at=func.clock_timestamp() + timedelta(hours=1)))
    world.observe(readiness(made.tools)[1][0].site_id)  # at once: what was asked for a moment ago need not show yet
    with pytest.raises(
        Conflict, match="1 of 1 sites were not listed late enough: aurora: its last complete"
    ) as refused:
        resume(made.tools, actor="tests")
    assert "--leave SITE" in str(refused.value.hint)
    with made.sessions() as session:
        is_soon = select(Site.next_listing_at < func.clock_timestamp() + timedelta(minutes=1))
        assert session.scalars(is_soon).one(), "somebody waits for it"
    late_enough(world, made)
    assert resume(made.tools, actor="tests").leases == 0
    assert standing(made.sessions).observing_since is None


@pytest.mark.usefixtures("world")
def test_a_site_that_does_not_answer_can_be_left(made: Services) -> None:
    with made.sessions.begin() as session:
        begin_observing(session, "a test")
    with pytest.raises(NotFound, match="there is no site 'nowhere'"):
        resume(made.tools, leave=["nowhere"], actor="tests")
    with pytest.raises(Conflict):
        resume(made.tools, actor="tests")
    resume(made.tools, leave=["aurora"], actor="tests")
    with made.sessions() as session:
        assert session.scalars(select(Site.observe_only)).one()
    assert standing(made.sessions).observing_since is None


@pytest.mark.usefixtures("world")
def test_a_site_whose_credential_is_away_is_named(made: Services) -> None:
    with made.sessions.begin() as session:
        begin_observing(session, "a test")
        session.execute(text("DELETE FROM site_credentials"))
    with pytest.raises(Conflict, match="aurora: it cannot be opened"):
        resume(made.tools, actor="tests")


def test_resume_raises_every_live_lease_above_what_was_before(world: World, made: Services) -> None:
    over = world.leases(world.order())[0]
    world.until_running(over)
    with world.sessions.begin() as session:
        session.execute(text("UPDATE leases SET desired = 'gone'"))
    world.until_gone(over)
    live = world.leases(world.order())[0]
    before = world.view(live).lease.generation
    with made.sessions.begin() as session:
        begin_observing(session, "a test")
        session.execute(
            update(Lease).where(Lease.id == live).values(claim_until=func.clock_timestamp() + timedelta(hours=1))
        )
    late_enough(world, made)
    done = resume(made.tools, actor="tests")
    lease = world.view(live).lease
    assert (lease.generation, lease.claim_until, lease.must_find) == (before + 1_000_000, None, True)
    assert not world.view(over).lease.must_find
    assert done.leases >= 1
    assert world.until_running(live).lease.state is LeaseState.RUNNING
    assert len(world.cloud.log.alive("server")) == 1


def test_resuming_twice_is_fine(world: World, made: Services) -> None:
    lease_id = world.leases(world.order())[0]
    with made.sessions.begin() as session:
        begin_observing(session, "a test")
    late_enough(world, made)
    assert resume(made.tools, actor="tests").leases == 1
    generation = world.view(lease_id).lease.generation
    assert resume(made.tools, actor="tests").leases == 0
    assert world.view(lease_id).lease.generation == generation


def test_a_restore_in_the_middle_of_a_resume_stops_it(
    world: World, made: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sites were listed before the second restore."""
    with made.sessions.begin() as session:
        begin_observing(session, "a test")
    late_enough(world, made)
    found = readiness(made.tools)
    with made.sessions.begin() as session:
        session.execute(update(Installation).values(made_at=func.clock_timestamp()))
    monkeypatch.setattr("broker.resuming.readiness", lambda _: found)
    with pytest.raises(Conflict, match="replaced once more"):
        resume(made.tools, actor="tests")
    assert standing(made.sessions).observing_since is not None


# --- what people see ---------------------------------------------------------------------------------------------


def test_the_clock_notices_a_restore_and_the_pages_say_so(world: World, made: Services) -> None:
    order = world.order()
    with made.sessions.begin() as session:
        session.execute(update(Installation).values(made_at=func.clock_timestamp()))
    with Clock(made):
        pass  # each tick runs once at the start, and closing waits for it
    with made.sessions() as session:
        assert session.scalars(select(func.count()).where(Finding.kind == "only_observing")).one() == 1
        assert session.execute(text("SELECT FROM procrastinate_jobs WHERE task_name = 'reconcile'")).first() is None
    with TestClient(make_app(made), "http://127.0.0.1:8642") as client:
        token = made.settings.token_file.read_text().strip()
        client.get("/login", params={"token": token})
        for page in ("/", f"/workloads/{order.id}"):
            assert "Leeway only observes:" in client.get(page).text
        client.headers["Authorization"] = f"Bearer {token}"
        refused = client.post("/api/v1/installation/resume", json={})
        assert refused.status_code == 409
        assert refused.json()["sites"][0]["site"] == "aurora"
        assert client.post("/api/v1/installation/resume", json={"leave": ["aurora"]}).json() == {"leases": 1}
        assert "Leeway only observes:" not in client.get("/").text
