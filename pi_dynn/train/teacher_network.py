"""A teacher adapted to a student's image size, normalisation and order of classes."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.errors import ModelError


class TeacherNetwork(nn.Module):
    """Logits of a teacher for the student's input.

    `answer` maps the teacher's input (B, 3, S, S) to logits (B, its classes); if it is a module it moves along with
    this one. The student's input is converted back to colours, resized to the teacher's size and normalised as for
    the teacher.

    Raises: ModelError if the teacher lacks one of the student's classes.
    """

    def __init__(
        self,
        answer: Callable[[Tensor], Tensor],
        own: Preprocess,
        students: Preprocess,
        classes: tuple[Sequence[str], Sequence[str]],
    ) -> None:
        """`classes` are the teacher's and the student's, by name."""
        super().__init__()
        self._answer, self.size = answer, own.size
        known, required = classes
        missing = [name for name in required if name not in known]
        if missing:
            raise ModelError(
                f"the teacher does not know the class {missing[0]!r} (it knows {', '.join(list(known)[:4])}, ...): "
                "train a teacher on this data set with `pi-dynn train transfer`"
            )
        self.register_buffer("order", torch.tensor([list(known).index(name) for name in required]), persistent=False)
        own_mean, own_std, mean, std = (
            torch.tensor(values).view(1, 3, 1, 1) for values in (own.mean, own.std, students.mean, students.std)
        )
        # (x * std + mean - own_mean) / own_std, as one product and one sum
        self.register_buffer("scale", std / own_std, persistent=False)
        self.register_buffer("shift", (mean - own_mean) / own_std, persistent=False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale + self.shift
        if x.shape[-1] != self.size:
            x = F.interpolate(x, size=(self.size, self.size), mode="bicubic", align_corners=False, antialias=True)
        return self._answer(x)[:, self.order]
