"""How things stand, as Prometheus reads it. Every metric stands in `FAMILIES`, and in docs/reference/metrics.md.

Labels are names of sites and words of enums, never people, projects or machines. Whatever has a label has all its
values from the first, so that an alert on the first failure finds something to compare it with; but what is not known
has no value at all, as it is not zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from broker.figures import ContactFigures, Figures
from broker.health import Health, HealthState
from broker.models.health import ProbeKind
from broker.models.leases import LeaseState
from broker.models.workloads import OrderState
from web.queue import QueueState


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its name, which `_total` makes a counter, its help, and its labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


FAMILIES: Final = {
    family.name: family
    for family in (
        Family("leeway_build_info", "The version that answers, as a label; always 1.", ("version",)),
        Family("leeway_observing", "1 while Leeway only observes, after a restore."),
        Family("leeway_site_up", "1 unless the site is failing, or its last listing failed.", ("site",)),
        Family("leeway_site_failure_ratio", "Share of failures in the last hour, weighted.", ("site", "kind")),
        Family("leeway_site_contacts_total", "Questions to the site.", ("site", "kind")),
        Family("leeway_site_contact_failures_total", "Those without a usable answer.", ("site", "kind")),
        Family("leeway_site_contact_seconds_total", "Time from question to answer, summed.", ("site", "kind")),
        Family("leeway_site_listing_age_seconds", "Since the last listing of the site began.", ("site",)),
        Family("leeway_site_listing_duration_seconds", "What the last complete listing took.", ("site",)),
        Family("leeway_site_listing_failures", "Listings that failed in a row.", ("site",)),
        Family("leeway_site_machines", "Machines in the last complete listing, whoever made them.", ("site",)),
        Family("leeway_leases", "Leases that are not gone.", ("site", "state")),
        Family("leeway_orders", "Orders that are not over.", ("state",)),
        Family("leeway_leases_due", "Leases that wait for a worker now."),
        Family("leeway_findings", "Open findings.", ("kind",)),
        Family("leeway_findings_cost_per_day", "What they cost, where that is known.", ("kind", "commodity")),
        Family("leeway_findings_cost_unknown", "Open findings whose cost is not known.", ("kind",)),
        Family("leeway_workers", "Workers whose heart beats."),
        Family("leeway_queue_waiting", "Wake-ups that wait for a worker."),
        Family("leeway_queue_oldest_seconds", "Since when the oldest of them waits; 0 where none does."),
        Family("leeway_queue_running", "Wake-ups that are worked on."),
        Family("leeway_sweep_age_seconds", "Since a clock last looked for what is due."),
    )
}
Sample = tuple[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class Standing:
    """What is told."""

    version: str
    is_observing: bool
    figures: Figures
    queue: QueueState
    now: datetime


def render(standing: Standing, *, accept: str) -> tuple[bytes, str]:
    """The text and its media type, in the format that the request's `Accept` asks for."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Rows(standing))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


class _Rows(Collector):
    """The library asks once; what it gets was read before."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    def collect(self) -> Iterator[Metric]:
        for name, samples in samples_of(self._standing).items():
            family = FAMILIES[name]
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            metric = kind(name, family.help, labels=family.labels)
            for labels, value in samples:
                metric.add_metric(labels, value)
            yield metric


def samples_of(standing: Standing) -> dict[str, Sequence[Sample]]:
    """Every metric with its samples."""
    figures = standing.figures
    made: dict[str, Sequence[Sample]] = {
        "leeway_build_info": [((standing.version,), 1)],
        "leeway_observing": [((), standing.is_observing)],
        "leeway_leases_due": [((), figures.due)],
        "leeway_orders": [
            ((state,), figures.orders.get(state, 0)) for state in OrderState if state is not OrderState.OVER
        ],
        "leeway_sweep_age_seconds": _known([((), figures.sweep_age)]),
    }
    return made | _site_samples(figures) | _finding_samples(figures) | _queue_samples(standing)


def _site_samples(figures: Figures) -> dict[str, Sequence[Sample]]:
    sites = figures.sites
    pairs = [(site, kind) for site in sites for kind in ProbeKind]
    contacts = {(site.name, kind): figures.contacts.get((site.id, kind), ContactFigures()) for site, kind in pairs}
    health = {site.name: figures.health.get(site.id, Health()) for site in sites}
    return {
        "leeway_site_up": [
            ((site.name,), site.is_listed and health[site.name].state is not HealthState.FAILING) for site in sites
        ],
        "leeway_site_failure_ratio": [
            ((name, one.kind), one.share) for name, found in health.items() for one in found.kinds
        ],
        "leeway_site_contacts_total": [(labels, one.contacts) for labels, one in contacts.items()],
        "leeway_site_contact_failures_total": [(labels, one.failures) for labels, one in contacts.items()],
        "leeway_site_contact_seconds_total": [(labels, float(one.seconds)) for labels, one in contacts.items()],
        "leeway_site_listing_age_seconds": _known(((site.name,), site.listing_age) for site in sites),
        "leeway_site_listing_duration_seconds": _known(((site.name,), site.listing_time) for site in sites),
        "leeway_site_listing_failures": [((site.name,), site.failed_listings) for site in sites],
        "leeway_site_machines": [((site.name,), site.machines) for site in sites if site.machines is not None],
        "leeway_leases": [
            ((site.name, state), figures.leases.get((site.id, state), 0))
            for site in sites
            for state in LeaseState
            if state is not LeaseState.GONE
        ],
    }


def _finding_samples(figures: Figures) -> dict[str, Sequence[Sample]]:
    findings = figures.findings.items()
    return {
        "leeway_findings": [((kind,), found.count) for kind, found in findings],
        "leeway_findings_cost_per_day": [
            ((kind, code), float(total)) for kind, found in findings for code, total in found.per_day.items()
        ],
        "leeway_findings_cost_unknown": [((kind,), found.unknown) for kind, found in findings],
    }


def _queue_samples(standing: Standing) -> dict[str, Sequence[Sample]]:
    queue = standing.queue
    waits = timedelta(0) if queue.oldest is None else max(standing.now - queue.oldest, timedelta(0))
    return {
        "leeway_workers": [((), queue.workers)],
        "leeway_queue_waiting": [((), queue.waiting)],
        "leeway_queue_oldest_seconds": _known([((), waits)]),
        "leeway_queue_running": [((), len(queue.running))],
    }


def _known(times: Iterable[tuple[tuple[str, ...], timedelta | None]]) -> list[Sample]:
    """In seconds, without what is not known."""
    return [(labels, time.total_seconds()) for labels, time in times if time is not None]
