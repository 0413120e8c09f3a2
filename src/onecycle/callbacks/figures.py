"""What a run looks like: augmented training images, the confusion matrix, the worst mistakes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from onecycle.data.datamodule import DataModule
from onecycle.runs.loggers import harmless, tensorboard_of
from onecycle.training.classifier import Classifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Figures(pl.Callback):
    """Writes figures to TensorBoard and as PNG into the run's figures/.

    mistakes: how many wrong answers are shown, those with the highest loss first.
    """

    title = "figures/"

    def __init__(self, folder: str, mistakes: int) -> None:
        self.folder, self.mistakes = Path(folder) / "figures", mistakes
        self.broken = False
        self._drawn = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Draw the run's first batch, as the network sees it."""
        if self._drawn or trainer.global_step or not trainer.is_global_zero:
            return
        self._drawn = True
        mean, std = trainer.datamodule.normalization  # type: ignore[attr-defined]
        grid = image_grid(to_uint8(batch.images[:64], mean, std), columns=16)
        board = tensorboard_of(trainer.loggers)
        if board:
            board.write_image("training images", grid, 0)
        from PIL import Image

        picture = Image.fromarray(grid.permute(1, 2, 0).numpy()).resize((grid.shape[2] * 2, grid.shape[1] * 2), 0)
        self._write("training_images", picture.save)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the confusion matrix and the worst mistakes of the test images."""
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Classifier)
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        figures = test_figures(
            pl_module.test_logits["plain"].cpu(), pl_module.test_labels.cpu(), datamodule, self.mistakes
        )
        board = tensorboard_of(trainer.loggers)
        for name, figure in figures.items():
            self._write(name, partial(figure.savefig, dpi=110))
            if board:
                board.write_figure(name.replace("_", " "), figure, pl_module.total_steps)

    @harmless
    def _write(self, name: str, write: Callable[[Path], Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / f"{name}.png")


def test_figures(logits: Tensor, labels: Tensor, datamodule: DataModule, mistakes: int) -> dict[str, "Figure"]:
    """The figures of an evaluation by file name. logits: float [n, classes], labels: int64 [n], in test order."""
    images = datamodule.splits["test"].pixels
    return {
        "confusion_matrix": confusion_figure(logits, labels, datamodule.classes),
        "worst_mistakes": mistakes_figure(logits, labels, images, datamodule.classes, mistakes),
    }


def confusion_figure(logits: Tensor, labels: Tensor, classes: tuple[str, ...]) -> "Figure":
    """Shares of each true class (row) that were answered as each class (column), in percent."""
    from matplotlib.figure import Figure
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    count = len(classes)
    shares = multiclass_confusion_matrix(logits.argmax(1), labels, count, normalize="true").nan_to_num() * 100
    side = 2.5 + 0.5 * min(count, 25)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    # A root scale: mistakes are a few percent beside a diagonal of ninety.
    picture = axes.imshow(shares.sqrt().numpy(), cmap="Blues", vmin=0, vmax=10)
    if count <= 25:
        for row in range(count):
            for column in range(count):
                share = shares[row, column].item()
                if share >= 0.05:
                    color = "white" if share > 40 else "black"
                    axes.text(column, row, f"{share:.1f}", ha="center", va="center", fontsize=7.5, color=color)
        axes.set_xticks(range(count), classes, rotation=45, ha="right")
        axes.set_yticks(range(count), classes)
    axes.set(xlabel="answered", ylabel="true class", title=f"Confusion, % of each class (n = {len(labels):,})")
    bar = figure.colorbar(picture, ax=axes, shrink=0.8, ticks=[0, 1, 3, 5, 10])
    bar.ax.set_yticklabels(["0 %", "1 %", "9 %", "25 %", "100 %"])
    return figure


def mistakes_figure(logits: Tensor, labels: Tensor, images: Tensor, classes: tuple[str, ...], count: int) -> "Figure":
    """The wrongly answered images with the highest loss. images: uint8 [n, h, w, 3]."""
    from matplotlib.figure import Figure

    losses = torch.nn.functional.cross_entropy(logits.nan_to_num(), labels, reduction="none")
    answers = logits.argmax(1)
    losses[answers == labels] = -1.0
    worst = [index for index in losses.argsort(descending=True).tolist()[:count] if losses[index] >= 0]
    columns = max(1, min(len(worst), round(count**0.5)))
    rows = max(1, -(-len(worst) // columns))
    figure = Figure(figsize=(1.7 * columns, 0.4 + 2.0 * rows), layout="constrained")
    figure.suptitle(f"The {len(worst)} worst mistakes")
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if place < len(worst):
            index = worst[place]
            axes.imshow(images[index].numpy(), interpolation="nearest")
            confidence = logits[index].softmax(0).max().item()
            title = f"{classes[answers[index]]} {confidence:.0%}\nis {classes[labels[index]]}"
            axes.set_title(title, fontsize=8)
    return figure


def to_uint8(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Normalised float [n, 3, h, w] → the colours they stand for, uint8 [n, 3, h, w] on the CPU."""
    scale, offset = (torch.tensor(part, device=images.device).view(3, 1, 1) for part in (std, mean))
    return (images * scale + offset).round().clamp(0, 255).to(torch.uint8).cpu()


def image_grid(images: Tensor, columns: int) -> Tensor:
    """One picture [3, H, W] of uint8 images [n, 3, h, w], two pixels apart."""
    count, _, height, width = images.shape
    rows = -(-count // columns)
    grid = torch.full((3, rows * (height + 2) - 2, columns * (width + 2) - 2), 255, dtype=torch.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + 2), index % columns * (width + 2)
        grid[:, top : top + height, left : left + width] = image
    return grid
