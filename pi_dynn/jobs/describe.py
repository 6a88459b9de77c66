"""What a registered network is, without building its weights."""

import torch

from pi_dynn.models.macs import count_macs
from pi_dynn.models.registry import create_model

USUAL_SIZE = {
    "gfnet_12_192": 128,
    "branchynet": 32,
    "b_lenet": 28,
    "b_alexnet": 32,
    "b_resnet_110": 32,
}  # image size in pixels where it is not 224


def describe_model(name: str, num_classes: int = 1000) -> dict:
    """Name, usual image size, parameters and multiply-adds of a network; "meta" tensors hold no memory."""
    image_size = USUAL_SIZE.get(name, 224)
    with torch.device("meta"):
        model = create_model(name, num_classes=num_classes, image_size=image_size)
    return {
        "name": name,
        "image_size": image_size,
        "num_classes": num_classes,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "macs": count_macs(model, image_size).total,
    }
