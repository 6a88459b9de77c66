"""Robustness of a bundle on corrupted or hard images: accuracy, and the shift of its exits.

Shape letters: K exits including the last answer, N samples.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from pi_dynn.calibrate.drift import compare_shares
from pi_dynn.calibrate.outcomes import leave_at
from pi_dynn.data.corruptions import ALEXNET_ERRORS, PUBLISHED, SEVERITIES, corrupt_pixels
from pi_dynn.data.folders import ImageFolder
from pi_dynn.evaluate.outputs import Alter, ExitOutputs
from pi_dynn.evaluate.records import ConditionResult, CorruptionSummary
from pi_dynn.runtime.manifest import Manifest

Condition = tuple[str | None, int | None, ImageFolder, Alter | None]
"""Corruption, severity, the images, and the function that alters them."""


def corrupted_conditions(data: ImageFolder, names: Sequence[str], severities: Sequence[int]) -> Iterator[Condition]:
    """The clean images, then each corruption at each severity."""
    yield None, None, data, None
    for name in names:
        for severity in severities:
            yield name, severity, data, _alter(name, severity)


def _alter(name: str, severity: int) -> Alter:
    return lambda pixels, i: corrupt_pixels(pixels, name, severity, seed=i)


def judge_conditions(
    conditions: Sequence[Condition],
    collect: Callable[[Condition], ExitOutputs],
    thresholds: list[float],
    manifest: Manifest,
    expected: Sequence[float] | None = None,
) -> list[ConditionResult]:
    """A result for each condition, in order. `expected` are the clean exit shares (K), if they are known.

    Otherwise later conditions are compared with the first one without a corruption.
    """
    results = []
    for condition in conditions:
        result = _judge(condition, collect(condition), thresholds, manifest)
        if expected is not None:
            counts = [round(rate * result.images) for rate in result.exit_rates]
            result = replace(result, p_value=compare_shares(counts, expected))
        elif condition[0] is None:
            expected = result.exit_rates
        results.append(result)
    return results


def _judge(condition: Condition, outputs: ExitOutputs, thresholds: list[float], manifest: Manifest) -> ConditionResult:
    exits = leave_at(outputs.scores, thresholds)
    N, K = len(exits), len(manifest.blocks)
    right = outputs.right
    return ConditionResult(
        corruption=condition[0],
        severity=condition[1],
        images=N,
        failed=len(outputs.failed),
        acc1=float(right[exits, np.arange(N)].mean()),
        full_depth_acc1=float(right[-1].mean()),
        mean_macs=float(np.asarray(manifest.macs, dtype=np.float64)[exits].mean()),
        mean_depth=float((np.asarray(manifest.blocks) + 1)[exits].mean()),
        exit_rates=(np.bincount(exits, minlength=K) / N).tolist(),
        p_value=None,
    )


def summarise(results: Sequence[ConditionResult], published: bool) -> CorruptionSummary | None:
    """Mean corruption errors; None without corruptions.

    `published` says that these are the images of ImageNet-C: with all fifteen corruptions and five severities among
    them, errors are also given relative to AlexNet's.

    Source: Hendrycks and Dietterich (2019), section 4.2.
    """
    corrupted = [result for result in results if result.corruption is not None]
    if not corrupted:
        return None
    clean = next((result for result in results if result.corruption is None), None)
    errors, deep = (_errors(corrupted, field) for field in ("acc1", "full_depth_acc1"))
    mean, deep_mean = (float(np.mean(list(of.values()))) for of in (errors, deep))
    conditions = {(result.corruption, result.severity) for result in corrupted}
    whole = published and all((name, level) in conditions for name in PUBLISHED for level in SEVERITIES)
    relative, deep_relative = (
        float(np.mean([of[name] / ALEXNET_ERRORS[name] for name in PUBLISHED])) if whole else None
        for of in (errors, deep)
    )
    return CorruptionSummary(
        errors=errors,
        mean_error=mean,
        full_depth_mean_error=deep_mean,
        beyond_clean=None if clean is None else mean - (1 - clean.acc1),
        full_depth_beyond_clean=None if clean is None else deep_mean - (1 - clean.full_depth_acc1),
        relative=relative,
        full_depth_relative=deep_relative,
    )


def _errors(corrupted: Sequence[ConditionResult], field: str) -> dict[str, float]:
    """Error of each corruption, the mean over its severities."""
    names = dict.fromkeys(result.corruption for result in corrupted if result.corruption is not None)
    return {
        name: float(np.mean([1 - getattr(result, field) for result in corrupted if result.corruption == name]))
        for name in names
    }
