"""The rows of a run for TensorBoard, which is optional."""

from pathlib import Path

from pi_dynn.errors import need_extra
from pi_dynn.train.engine import Row


class TensorBoardLog:
    """An observer that writes every figure of every epoch to a folder TensorBoard reads."""

    def __init__(self, folder: str | Path) -> None:
        """Raises: InputError if the package is not installed."""
        with need_extra("tensorboard", "--tensorboard"):
            from torch.utils.tensorboard import SummaryWriter
        self._writer = SummaryWriter(str(folder))

    def step(self, steps: int) -> None:
        """Steps are not logged."""

    def epoch(self, name: str, row: Row) -> None:
        for key, value in row.items():
            if key != "epoch":
                self._writer.add_scalar(f"{name}/{key}", value, row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
