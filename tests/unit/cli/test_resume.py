"""`leeway resume`, and what a person sees until then."""

from __future__ import annotations

import psycopg

from broker.database import Database, libpq_url
from tests.unit.cli.conftest import WORKLOAD, Leeway


def test_resume_says_what_it_waits_for_and_leaves_a_site(leeway: Leeway, own_database: Database) -> None:
    assert leeway.ok("resume") == "Leeway acts already: there is nothing to resume.\n"
    leeway.ok("submit", "--yes", "-", stdin=WORKLOAD)
    with psycopg.connect(libpq_url(own_database.application_url), autocommit=True) as connection:
        connection.execute("UPDATE installations SET made_at = clock_timestamp()")  # as a restore: a row written anew
    refused = leeway("resume")
    assert refused.exit_code == 1
    assert "aurora" in refused.stderr
    assert "--leave SITE" in refused.stderr
    doctor = leeway("doctor", environment={"LEEWAY_DATABASE_URL": own_database.application_url})
    assert doctor.exit_code == 1
    assert "Leeway only observes: the database is not the one" in " ".join(doctor.stdout.split())
    assert "To be mended: restored" in doctor.stderr
    findings = leeway.ok("findings")
    assert "only_observing" in findings
    assert ".." not in findings
    shown = leeway("submit", "-", "--yes", stdin="kind: machine\nname: a\nproject: climate\n"
                   "resources: {cores: 1, memory: 1 GiB}\nimage: ubuntu-24.04\nduration: 1 hour\n")  # fmt: skip
    assert shown.exit_code == 1
    assert "only observes" in shown.stderr
    # It does not wait for what will not come.
    assert "carried out after `leeway resume`" in " ".join(leeway.ok("stop", "trial").split())
    assert leeway("resume", "--leave", "nowhere").exit_code == 1
    assert leeway.ok("resume", "--leave", "aurora").startswith("Leeway acts again. 1 leases")
    assert leeway.json("resume") == {"leases": 0}
    assert "only_observing" not in leeway.ok("findings")
