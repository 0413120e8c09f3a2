"""What a run looks like: augmented training images, the confusion matrix, the worst mistakes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from onecycle.runs.loggers import NeedsRun, RunContext, harmless, log_image
from onecycle.training.tasks import Classification

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


class Figures(NeedsRun, pl.Callback):
    """Draws figures as PNG into the run's figures/, and gives them to the loggers that take images.

    mistakes: how many wrong answers are shown, those with the highest loss first.
    """

    title, broken = "figures/", False

    def __init__(self, mistakes: int) -> None:
        self.mistakes, self._drawn = mistakes, False

    def attach(self, run: RunContext) -> None:
        """Write into the run's folder."""
        self.folder = run.folder / "figures"

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Draw the run's first batch, as the network sees it."""
        if self._drawn or trainer.global_step or not trainer.is_global_zero:
            return
        self._drawn = True
        picture = training_picture(batch.images[:64], *trainer.datamodule.normalization)  # type: ignore[attr-defined]
        log_image(trainer.loggers, "images of the first training step, augmented", picture, 0)
        self._write("training_images", picture.resize((picture.width * 2, picture.height * 2), 0).save)

    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Draw the confusion matrix and the worst mistakes of the test images, if they have classes."""
        if not (trainer.is_global_zero and isinstance(pl_module.task, Classification)):
            return
        from matplotlib import rc_context

        data = trainer.datamodule  # type: ignore[attr-defined]
        logits, labels = pl_module.test_logits["plain"].cpu(), pl_module.test_labels.cpu()
        with rc_context({"text.parse_math": False}):  # a dollar in a class's name is a dollar
            worst = mistakes_figure(logits, labels, data.splits["test"].pixels, data.classes, self.mistakes)
            matrix = confusion_figure(logits, labels, data.classes)
        for name, figure in {"confusion_matrix": matrix, "worst_mistakes": worst}.items():
            self._write(name, partial(figure.savefig, dpi=110))
            shown = f"{name.replace('_', ' ')} on the test images"
            log_image(trainer.loggers, shown, figure, pl_module.total_steps)

    @harmless
    def _write(self, name: str, write: Callable[[Path], Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / f"{name}.png")


def training_picture(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> "Image":
    """The colours of normalised images [n, 3, h, w], sixteen a row, two white pixels apart."""
    from torchvision.transforms.functional import to_pil_image
    from torchvision.utils import make_grid

    scale, offset = (torch.tensor(part, device=images.device).view(3, 1, 1) for part in (std, mean))
    colours = (images * scale + offset).round().clamp(0, 255).to(torch.uint8).cpu()
    grid = make_grid(colours, nrow=16, padding=2, pad_value=255)
    return to_pil_image(grid[:, 2:-2, 2:-2])  # without a border


def confusion_figure(logits: Tensor, labels: Tensor, classes: tuple[str, ...]) -> "Figure":
    """Shares of each true class (row) that were answered as each class (column), in percent.

    logits: float [n, classes], labels: int64 [n].
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    count = len(classes)
    shares = multiclass_confusion_matrix(logits.argmax(1), labels, count, normalize="true").nan_to_num() * 100
    side = 1.5 + 0.35 * min(count, 25)  # small beside its letters: TensorBoard shows it at a third of a page's width
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    # A root scale: wrong answers are a few percent beside a diagonal of ninety.
    picture = axes.imshow(shares.numpy(), cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    if count <= 25:
        for row, column in (shares > 0.5).nonzero().tolist():
            share = shares[row, column].item()
            color = "white" if share > 40 else "black"
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=9, color=color)
        axes.set_xticks(range(count), classes, rotation=45, ha="right")
        axes.set_yticks(range(count), classes)
    else:
        figure.colorbar(picture, ax=axes, shrink=0.8, ticks=[0, 1, 9, 25, 100], format="%d %%")
    axes.set(xlabel="answered", ylabel="true class", title=f"% of each class, n = {len(labels):,}")
    return figure


def mistakes_figure(logits: Tensor, labels: Tensor, images: Tensor, classes: tuple[str, ...], count: int) -> "Figure":
    """The `count` wrongly answered images with the highest loss.

    logits: float [n, classes], labels: int64 [n], images: uint8 [n, h, w, 3].
    """
    from matplotlib.figure import Figure

    answers, losses = logits.argmax(1), torch.nn.functional.cross_entropy(logits.nan_to_num(), labels, reduction="none")
    order = losses.argsort(descending=True)
    worst = order[(answers != labels)[order]][:count].tolist()
    columns = max(1, min(len(worst), round(count**0.5)))
    rows = max(1, -(-len(worst) // columns))
    figure = Figure(figsize=(1.7 * columns, 0.4 + 2.0 * rows), layout="constrained")
    figure.suptitle(f"The {len(worst)} worst mistakes")
    for place, index in enumerate(worst, 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.axis("off")
        axes.imshow(images[index].numpy(), interpolation="nearest")
        confidence = logits[index].softmax(0).max().item()
        axes.set_title(f"{classes[answers[index]]} {confidence:.0%}\nis {classes[labels[index]]}", fontsize=8)
    return figure
