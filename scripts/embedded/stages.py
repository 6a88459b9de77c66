"""The stages of pretraining: what each sees, at what size and rate, and what it is to learn."""

from dataclasses import dataclass, field, replace

from probe import EXITS
from targets import Weights
from views import SMALLEST_CROP


@dataclass(frozen=True)
class Stage:
    """A stretch of training at one image size."""

    name: str
    form: str  # plain or distilled
    image_size: int
    batch_size: int
    lr: float
    final_lr: float
    after: str | None = None  # the stage whose weights it starts from
    warmup_steps: int = 300
    weight_decay: float = 0.05
    clip_grad: float = 1.0
    repeats: dict[str, float] = field(default_factory=dict)  # of each set; 1 where none is given
    exits: tuple[int, ...] = ()
    weights: Weights = Weights()
    smallest_crop: float = SMALLEST_CROP  # share of an image's area
    mixed: float = 0.0  # share of the batches that are blended, and answered by the task's teacher alone


ALL = {"cifar10": 0, "aid": 2, "rsscn7": 2, "ucm_train": 4}  # 32 px of CIFAR-10 tell least for the time they take
AERIAL = {"tiny_imagenet": 0, "cifar10": 0, "aid": 1, "rsscn7": 1, "ucm_train": 4}
TASK = AERIAL | {"aid": 0, "rsscn7": 0, "ucm_train": 8}
AERIAL_128 = Stage(
    "aerial_128",
    "distilled",
    128,
    128,
    lr=4e-4,
    final_lr=5e-5,
    after="distilled_128",
    warmup_steps=50,
    repeats=AERIAL,
    exits=EXITS,
    weights=Weights(labels=1.0, classes=0.25, exits=1.0, task=0.5, tokens=2.0),
    mixed=0.25,
)
TASK_128 = Stage(
    "task_128",
    "distilled",
    128,
    64,
    lr=1e-4,
    final_lr=2e-6,
    after="aerial_128",
    warmup_steps=20,
    repeats=TASK,
    exits=EXITS,
    weights=Weights(labels=1.0, classes=0.1, features=1.0, task=1.0),
    smallest_crop=1.0,  # whole, as they are classified
    mixed=0.5,
)
STAGES = (
    Stage("plain_64", "plain", 64, 128, lr=1.2e-3, final_lr=2e-4, warmup_steps=150, repeats=ALL),
    Stage(
        "distilled_128",
        "distilled",
        128,
        128,
        lr=8e-4,
        final_lr=2e-4,
        after="plain_64",
        repeats={"tiny_imagenet": 0.25, "cifar10": 0, "aid": 2, "rsscn7": 2, "ucm_train": 4},
        weights=Weights(tokens=2.0),
    ),
    AERIAL_128,
    TASK_128,
    replace(
        AERIAL_128,
        name="aerial_plain_128",
        form="plain",
        after="plain_64",
        weights=replace(AERIAL_128.weights, exits=0.5, tokens=0.0),
    ),
    replace(TASK_128, name="task_plain_128", form="plain", after="aerial_plain_128"),
)
