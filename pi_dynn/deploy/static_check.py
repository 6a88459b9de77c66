"""How far a network with static int8 is off from the fp32 one it was made of."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from pi_dynn.deploy.network import EarlyExitNetwork
from pi_dynn.errors import ModelError
from pi_dynn.runtime.engine_choice import relative_error

WORST_RELATIVE_ERROR = 0.30  # of the logits of an exit, as for static int8 in ONNX; what is broken is off by more
BATCH = 16


@dataclass(frozen=True)
class StaticQuantisation:
    """What was quantised and what it cost, on the calibration images and for each exit, the last answer included."""

    images: int
    relative_error: list[float]
    top1_agreement: list[float]
    kept_in_fp32: dict[str, str]  # part of the network: why

    def to_dict(self) -> dict:
        return asdict(self)


def compared(
    network: EarlyExitNetwork, quantised: EarlyExitNetwork, images: Tensor, kept: dict[str, str]
) -> StaticQuantisation:
    """How far int8 is off. Raises ModelError where it answers otherwise."""
    got, wanted = (
        [torch.cat(exits) for exits in zip(*(form.forward_all(x) for x in images.split(BATCH)), strict=True)]
        for form in (quantised, network)
    )
    errors = [relative_error([a], [b]) for a, b in zip(got, wanted, strict=True)]
    agreement = [float((a.argmax(1) == b.argmax(1)).float().mean()) for a, b in zip(got, wanted, strict=True)]
    worst = max(range(len(errors)), key=errors.__getitem__)
    if not errors[worst] <= WORST_RELATIVE_ERROR:  # NaN is no parity either
        raise ModelError(
            f"static int8 is off by {errors[worst]:.0%} at exit {worst} and agrees with fp32 on "
            f"{agreement[worst]:.0%} of the calibration images: take fp32, or int8 in ONNX"
        )
    return StaticQuantisation(len(images), errors, agreement, kept)
