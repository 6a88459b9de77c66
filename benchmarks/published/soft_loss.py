"""DeiT's soft distillation loss, which is smaller than its formula says by the number of classes.

Source: facebookresearch/deit, losses.py: the sum of the divergence is divided by all B * classes numbers of the
batch, not by its B images.
"""

from torch import Tensor

from pi_dynn.train.distill import soft_distillation_loss


def published_soft_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) * temperature^2 per number of the answer. Shapes: (B, classes) both."""
    return soft_distillation_loss(logits, teacher, temperature) / logits.shape[1]
