"""TensorBoard: the curves of each distillation, and the images of its sets."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import DistilledSet, Options, Tracker, option

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

_MOST_IMAGES = 100


class TensorBoardOptions(Options):
    """Options of `TensorBoard`."""

    folder: str = option("tensorboard", "the folder of the event files, for `tensorboard --logdir`")


class TensorBoard(Tracker[TensorBoardOptions]):
    """Writes event files, a folder for each distilled set, with its curves and its images."""

    Options = TensorBoardOptions
    needs = {"tensorboard": "ddbench[tensorboard]"}

    def __init__(self, options: TensorBoardOptions) -> None:
        super().__init__(options)
        self._writers: dict[str, SummaryWriter] = {}

    def step(self, cell: Mapping[str, Any], iteration: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars."""
        writer = self._writer(cell)
        for name, value in scalars.items():
            writer.add_scalar(name, value, iteration)

    def set_finished(self, cell: Mapping[str, Any], distilled: DistilledSet) -> None:
        """Write the images, up to a hundred, as they look before preprocessing."""
        images, _ = distilled.training_data()
        pixels = distilled.preprocessing.invert(images[:_MOST_IMAGES]).clamp(0, 1)
        self._writer(cell).add_images("images", pixels, cell["identity"]["iterations"])

    def cell_finished(self, cell: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        """Close the files of the set."""
        if writer := self._writers.pop(cell["key"], None):
            writer.close()

    def close(self) -> None:
        """Close all files."""
        while self._writers:
            self._writers.popitem()[1].close()

    def _writer(self, cell: Mapping[str, Any]) -> "SummaryWriter":
        from torch.utils.tensorboard.writer import SummaryWriter  # late: it takes seconds

        if cell["key"] not in self._writers:
            folder = Path(self.options.folder) / self.run_name(cell)
            self._writers[cell["key"]] = SummaryWriter(str(folder), flush_secs=10)
        return self._writers[cell["key"]]
