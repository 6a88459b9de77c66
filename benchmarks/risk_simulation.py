"""Is the promise of risk control kept? Draw images again and again, choose on them, look at all."""

from dataclasses import dataclass

import numpy as np

from pi_dynn.calibrate.bounds import HARM
from pi_dynn.calibrate.outcomes import ExitOutcomes, leave_at, mean_cost
from pi_dynn.calibrate.risk import FEW, RiskSettings, common_path, count_losses, last_safe


@dataclass(frozen=True)
class SimulatedPromises:
    """Of `splits` draws: how often more than epsilon was lost, how often no image left; the mean cost over draws."""

    splits: int
    broken: int
    vacuous: int
    mean_cost: float


class PromiseSimulation:
    """`splits` draws of `images` images each, with replacement, from a population.

    Drawn so, the population's loss is the true one: a promise is broken exactly if that exceeds epsilon.
    """

    def __init__(self, population: ExitOutcomes, images: int, splits: int, seed: int = 0) -> None:
        path = common_path(population)
        harms, helps = count_losses(population, path)
        exits = [leave_at(population.scores, step) for step in path]
        self.images, self.splits = images, splits
        self.harm, self.help = harms.mean(axis=1), helps.mean(axis=1)
        self.costs = np.array([mean_cost(taken, population.costs) for taken in exits])
        self.leaving = np.array([(taken < population.early_exits).mean() for taken in exits])
        rng = np.random.default_rng(seed)
        drawn = np.stack(
            [
                np.bincount(rng.integers(0, population.images, images), minlength=population.images)
                for _ in range(splits)
            ]
        ).astype(np.float32)
        # How often an image was drawn, times whether it is harmed: one product counts for every step and draw.
        self.drawn_harms = np.rint(drawn @ harms.T.astype(np.float32)).astype(np.int64)
        self.drawn_helps = np.rint(drawn @ helps.T.astype(np.float32)).astype(np.int64)

    def keep(self, settings: RiskSettings) -> SimulatedPromises:
        """Choose on every draw, and judge on the population."""
        chosen = [
            max(last_safe(harms, helps, self.images, settings), 0)
            for harms, helps in zip(self.drawn_harms, self.drawn_helps, strict=True)
        ]
        return self._judge(chosen, settings)

    def keep_untested(self, settings: RiskSettings) -> SimulatedPromises:
        """The same for the cheapest thresholds that lose no more than epsilon on the draw, untested."""
        gap = settings.risk != HARM
        losses = (self.drawn_harms - (self.drawn_helps if gap else 0)) / self.images
        return self._judge([int(np.flatnonzero(loss <= settings.epsilon)[-1]) for loss in losses], settings)

    def _judge(self, chosen: list[int], settings: RiskSettings) -> SimulatedPromises:
        loss = self.harm if settings.risk == HARM else self.harm - self.help
        return SimulatedPromises(
            splits=self.splits,
            broken=int((loss[chosen] > settings.epsilon).sum()),
            vacuous=int((self.leaving[chosen] <= FEW).sum()),
            mean_cost=float(self.costs[chosen].mean()),
        )
