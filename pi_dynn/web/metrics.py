"""The content of `GET /metrics`: counts, latencies and energy of a LiveClassifier, in Prometheus' text format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pi_dynn.classify.live import LiveAnswer, LiveClassifier

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """Metrics in their own registry, updated by every answer."""

    def __init__(self, classifier: LiveClassifier) -> None:
        self.registry = CollectorRegistry()
        self._latency = Histogram(
            "pi_dynn_latency_seconds",
            "Time of an answer within the network.",
            ["block"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._energy = Counter(
            "pi_dynn_gross_energy_joules", "Drawn by the board during answers.", ["label"], registry=self.registry
        )
        for name, text, read in (
            ("waiting", "Images in the queue.", lambda: classifier.waiting),
            ("answered", "Images answered since the start.", lambda: classifier.answered),
            ("failed", "Images that could not be used.", lambda: classifier.failed),
            ("refused", "Images refused because the queue was full.", lambda: classifier.refused),
        ):
            Gauge(f"pi_dynn_images_{name}", text, registry=self.registry).set_function(read)
        if classifier.power is not None:
            power = classifier.power
            gauge = Gauge("pi_dynn_power_watts", "Power now.", ["label"], registry=self.registry)
            gauge.labels(power.info.label).set_function(lambda: power.power_w or float("nan"))
        classifier.watch(self.keep)

    def keep(self, answer: LiveAnswer) -> None:
        """Count one answer."""
        self._latency.labels(str(answer.prediction.block_index)).observe(answer.prediction.latency_s)
        if answer.gross_j is not None:
            self._energy.labels(answer.meter_label).inc(answer.gross_j)

    def text(self) -> bytes:
        """All metrics as they are now."""
        return generate_latest(self.registry)
