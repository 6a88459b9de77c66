#!/usr/bin/env python3
"""Keep of a stage's weights what answers UC Merced, as a file that `pi-dynn train exits --init FILE` takes.

python scripts/embedded/export.py --packed PACKED --weights OUT/task_128.safetensors --to OUT/backbone.safetensors
"""

import argparse
import json
from pathlib import Path

from pack import TRAINING_SETS, open_packed
from probe import EXITS
from safetensors.torch import load_file
from student import new_student
from targets import COMPONENTS, IMAGENET_CLASSES, class_offsets
from torch import Tensor

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.models.card import Card, save_weights

IMAGE_SIZE = 128


def task_state(state: dict[str, Tensor], first: int, classes: int) -> dict[str, Tensor]:
    """The weights with every head cut down to `classes` outputs from number `first` on."""
    return {key: value[first : first + classes].clone() if "head" in key else value for key, value in state.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packed", type=Path, default=Path("runs/embedded/packed"))
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--log", type=Path, help="log of the run, whose stages the card is to name")
    arguments = parser.parse_args()
    sets = [open_packed(name, arguments.packed) for name in TRAINING_SETS]
    number = TRAINING_SETS.index("ucm_train")
    first = COMPONENTS + IMAGENET_CLASSES + class_offsets(sets)[number]
    classes = sets[number].classes
    state = task_state(load_file(arguments.weights), first, len(classes))
    exits = EXITS if any(key.startswith("intermediate_heads") for key in state) else ()
    model = new_student("distilled" if "cls_token" in state else "plain", IMAGE_SIZE, len(classes), exits)
    model.load_state_dict(state)
    lines = arguments.log.read_text().splitlines() if arguments.log else []
    stages = [record for record in map(json.loads, lines) if "probe_ucm_calibrate" in record]
    preprocess = Preprocess(IMAGE_SIZE)
    save_weights(arguments.to, state, Card(model.name, model.arguments, classes, preprocess, stages))
    print(arguments.to)


if __name__ == "__main__":
    main()
