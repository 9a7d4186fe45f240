"""What stands beside a coordinator's work and never in its way: metrics and webhooks."""

from __future__ import annotations

from dataclasses import dataclass

from common.clock import Clock
from common.health import Health
from common.logs import get_logger
from common.telemetry import MetricsServer
from coordinator.config import CoordinatorConfig
from coordinator.ports import Views
from coordinator.watching.notices import NoticeWatch, Sources
from coordinator.watching.telemetry import CoordinatorCollector, CountedBytes
from coordinator.watching.webhooks import Webhooks

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Observed:
    """What they read."""

    sources: Sources
    views: Views
    moved: CountedBytes
    clock: Clock
    health: Health


class Observers:
    """Those that the configuration asks for: `start`, then `stop`.

    Raises:
        InvalidConfiguration: a webhook's secret file cannot be read.
    """

    def __init__(self, config: CoordinatorConfig, observed: Observed) -> None:
        ledger, clock = observed.sources.ledger, observed.clock
        self._metrics: MetricsServer | None = None
        self._webhooks: Webhooks | None = None
        if config.metrics.listen is not None:
            collector = CoordinatorCollector(ledger, observed.views, observed.moved, clock)
            self._metrics = MetricsServer(config.metrics.listen, collector, observed.health)
        if config.webhooks:
            self._webhooks = Webhooks(config.webhooks, NoticeWatch(observed.sources, clock), ledger, clock)

    def start(self) -> None:
        """
        Raises:
            PortInUse: the metrics' address is taken.
        """
        if self._metrics is not None:
            log.info("metrics ready", extra={"address": self._metrics.start()})
        if self._webhooks is not None:
            self._webhooks.start()

    def stop(self) -> None:
        if self._metrics is not None:
            self._metrics.stop()
        if self._webhooks is not None:
            self._webhooks.stop()
