"""What a device does only once, before the clock of the fit starts."""

from typing import Any

import lightning.pytorch as pl
import torch

STEPS = 3  # the first one of a shape tries cuDNN's algorithms, or compiles; the later ones show that it is done


def warm_up(classifier: Any, trainer: pl.Trainer) -> None:
    """Bring the images to the device, and take steps with every size of them where that prepares something.

    On a GPU the first steps load CUDA's libraries and let cuDNN choose its algorithms, and anywhere they compile the
    network if asked to; a CPU has nothing else of that kind. Weights, buffers, optimizer, order of the images and
    random state are afterwards those of before.
    """
    loaders = [trainer.datamodule.train_dataloader()]  # type: ignore[attr-defined]
    if trainer.limit_val_batches:
        loaders.append(trainer.datamodule.val_dataloader())  # type: ignore[attr-defined]
    device = classifier.device
    if device.type == "cpu" and not classifier.is_compiled:
        return
    optimizer, tensors = trainer.optimizers[0], [*classifier.network.parameters(), *classifier.network.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    batches = [loader.first_batch() for loader in loaders]
    with torch.random.fork_rng():
        sizes = dict.fromkeys(progress for progress, _ in classifier.resizing or [[0.0, 1.0]])
        for batch in (classifier.at_size(batches[0], progress) for progress in sizes):
            for _ in range(STEPS):
                with trainer.precision_plugin.forward_context():
                    loss = classifier.task.loss(classifier(batch.images).float(), batch.labels)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        if len(batches) > 1:
            modes = {module: module.training for module in classifier.modules()}
            classifier.eval()
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                classifier(batches[1].images)
            for module, mode in modes.items():
                module.training = mode
    with torch.no_grad():
        torch._foreach_copy_(tensors, before)
    optimizer.state.clear()
