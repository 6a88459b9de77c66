"""Distillation: a student with a distillation token learns from labels and from a teacher.

Source: DeiT (arXiv 2012.12877).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pi_dynn.errors import ModelError
from pi_dynn.train.engine import Stage, accuracy
from pi_dynn.train.transfer import Mix, unmixed


def hard_distillation_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy against the teacher's top class. Shapes: (B, classes) both."""
    return F.cross_entropy(logits, teacher.argmax(1))


def soft_distillation_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Divergence of the softened answers, KL(teacher || student) * temperature^2, per image.

    Shapes: (B, classes) both.
    """
    student, target = (F.log_softmax(z / temperature, dim=1) for z in (logits, teacher))
    divergence = F.kl_div(student, target, reduction="sum", log_target=True) * temperature**2
    return divergence / len(logits)


class Distillation(Stage):
    """(1 - alpha) * cross-entropy of the class token + alpha * distillation loss of the distillation token."""

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module,
        held_out: tuple[Tensor, Tensor],
        *,
        kind: str = "hard",
        alpha: float = 0.5,
        temperature: float = 1.0,
        mix: Mix = unmixed,
        label_smoothing: float = 0.1,
    ) -> None:
        """`teacher` maps the student's input (B, 3, H, W) to logits (B, classes) in the student's order.

        Raises: ModelError for a student without distillation token, or an unknown kind of loss.
        """
        super().__init__(model)
        if not getattr(model, "distilled", False):
            raise ModelError("the student has no distillation token: build it with distilled=True")
        if kind not in ("hard", "soft"):
            raise ModelError(f'distillation kind {kind!r} is not known: give "hard" or "soft"')
        self.teacher = teacher.requires_grad_(False)
        self.held_out, self.mix, self.label_smoothing = held_out, mix, label_smoothing
        self.kind, self.alpha, self.temperature = kind, alpha, temperature
        for name in ("gates", "intermediate_heads", "intermediate_heads_dist"):
            part = getattr(model, name, None)
            if part is not None:
                part.requires_grad_(False)

    def train(self, mode: bool = True) -> "Distillation":
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = self.mix(x, y)
        cls, dist = (logits.float() for logits in self.model.forward_heads(x))
        with torch.no_grad():
            target = self.teacher(x).float()
        if self.kind == "hard":
            teacher_loss = hard_distillation_loss(dist, target)
        else:
            teacher_loss = soft_distillation_loss(dist, target, self.temperature)
        label_loss = F.cross_entropy(cls, y, label_smoothing=self.label_smoothing)
        return (1 - self.alpha) * label_loss + self.alpha * teacher_loss

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        x, labels = self.held_out
        return {"accuracy": accuracy(model, x, labels, next(model.parameters()).device)}
