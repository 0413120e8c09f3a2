"""What a user would write or pick instead of this project: loaders, a bare loop and a plain Lightning script."""

import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import v2

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class ImageDataset(Dataset):
    """uint8 images [n, 32, 32, 3] and labels, transformed one image at a time, as torchvision's data sets do it."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Callable[[Any], Tensor]) -> None:
        self.images, self.labels, self.transform = images, labels.tolist(), transform

    def __len__(self) -> int:
        """Images in the set."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One transformed image and its label."""
        return self.transform(self.images[index]), self.labels[index]


def dataloader(
    images: np.ndarray, labels: np.ndarray, batch_size: int, *, kind: str, cutout: bool, workers: int
) -> DataLoader:
    """A DataLoader as tutorials write it: crop, flip, tensor, normalise, and random erasing in place of cutout.

    kind: "PIL", or "torchvision v2" for its transforms on tensors.
    """
    tv: Any = transforms if kind == "PIL" else v2
    before = [tv.ToPILImage()] if kind == "PIL" else [tv.ToImage()]
    to_float = [tv.ToTensor()] if kind == "PIL" else [tv.ToDtype(torch.float32, scale=True)]
    steps = [
        *before, tv.RandomCrop(32, padding=4, padding_mode="reflect"), tv.RandomHorizontalFlip(), *to_float,
        tv.Normalize(MEAN, STD), *[tv.RandomErasing(p=1.0, scale=(1 / 16, 1 / 16), ratio=(1.0, 1.0))] * cutout,
    ]  # fmt: skip
    return DataLoader(
        ImageDataset(images, labels, tv.Compose(steps)), batch_size, shuffle=True, num_workers=workers, drop_last=True,
        persistent_workers=workers > 0,
    )  # fmt: skip


def bare_loop(
    network: nn.Module, batch_size: int, device: torch.device, *, bf16: bool, channels_last: bool
) -> Iterator[None]:
    """Training steps on tensors that are already on the device, one at each `next`: the limit of what a loop can reach.

    No data path, no logging, no schedule.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = network.to(device).to(memory_format=layout).train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=True
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, 32, 32, generator=generator).to(device, memory_format=layout)
    images = images.bfloat16() if bf16 else images  # what autocast would do at every step
    labels = torch.randint(0, 10, (batch_size,), generator=generator).to(device)
    while True:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        yield


class PlainModule(pl.LightningModule):
    """The LightningModule of a tutorial: fp32, NCHW, a log of loss and accuracy at every step, torch's OneCycleLR."""

    def __init__(self, network: nn.Module, total_steps: int) -> None:
        super().__init__()
        self.network, self.total_steps = network, total_steps

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        images, labels = batch
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels)
        self.log("train_loss", loss, prog_bar=True)
        self.log("train_accuracy", (logits.argmax(1) == labels).float().mean(), prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        """SGD and torch's own one-cycle scheduler."""
        optimizer = torch.optim.SGD(self.parameters(), lr=0.4, momentum=0.9, weight_decay=5e-4, nesterov=True)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.4, total_steps=self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class StepClock(pl.Callback):
    """Reads the clock after step `first` and after the last one."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.times: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Wait for the device and read the clock, at two steps of a run."""
        if trainer.global_step in (self.first, trainer.max_steps):
            synchronize()
            self.times.append(time.perf_counter())


def plain_script(network: nn.Module, loader: DataLoader, steps: int, warm: int) -> float:
    """Seconds a step of `network` in fp32 and NCHW, with every step logged, after the first `warm` steps."""
    clock = StepClock(warm)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=-1, max_steps=steps + warm, precision="32-true", devices=1, callbacks=[clock],
            accelerator="auto", logger=TensorBoardLogger(folder), enable_model_summary=False, default_root_dir=folder,
            log_every_n_steps=1, enable_progress_bar=False, enable_checkpointing=False,
        )  # fmt: skip
        trainer.fit(PlainModule(network, steps + warm), loader)
    return (clock.times[1] - clock.times[0]) / steps


def synchronize() -> None:
    """Wait for the accelerator, if there is one."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
