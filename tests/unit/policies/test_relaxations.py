"""A relaxation is a promise: the changed workload fits where it says."""

from __future__ import annotations

from hypothesis import given

from policies.relaxations import relaxations
from policies.requirements import Case, judge
from tests.unit.policies.worlds import ASSUMPTIONS, NOW, Question, questions, rank


@given(questions)
def test_each_promise_is_kept_and_none_asks_for_more(asked: Question) -> None:
    work, world, facts = asked.workload, asked.world, asked.facts
    sites = {where.site_id: where for where in world.sites}
    judged = [
        judge(Case(work, sites[offer.site_id], offer, frozenset(facts.free)), ASSUMPTIONS, now=NOW)
        for offer in world.offers
    ]
    for relaxed in relaxations(judged, ASSUMPTIONS, now=NOW):
        easier = relaxed.workload
        assert easier != work
        said = relaxed.words.partition(": fits at ")[2]
        fitting = rank(easier, world, facts).candidates
        assert said in [f"{one.site.name} ({one.offer.name}, {one.total})" for one in fitting]
        assert easier.cores <= work.cores
        assert easier.memory_mib <= work.memory_mib
        assert easier.disk_gib <= work.disk_gib
        assert easier.volume_gib <= work.volume_gib
        assert easier.gpus <= work.gpus
        assert 1 <= easier.count <= work.count
        assert easier.duration == work.duration
        assert easier.keep_snapshot in (None, work.keep_snapshot)
        assert set(work.sites) <= set(easier.sites)
