"""What a network is trained for: the loss, and the numbers that say how good it is."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from onecycle.config.targets import instantiate, takes
from onecycle.errors import ConfigError, reason_of


class Task:
    """Base of the tasks; one of your own needs `loss` and `summed_score`, and `problem` for labels of other kinds.

    The network has an output for each of the data set's names. `score` names the number beside the loss, a mean over
    images, in logs and records.
    """

    score: ClassVar[str] = "accuracy"

    def problem(self, labels: Tensor) -> str:
        """What is wrong with the labels of a data set [n] or [n, outputs]; empty where nothing is."""
        return ""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch, of which the gradient is taken. logits: float [n, outputs]."""
        raise NotImplementedError

    def summed_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum over images of the loss that is reported."""
        return self.loss(logits, labels) * len(labels)

    def summed_score(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum over images of the number that is called `score`."""
        raise NotImplementedError

    def sums(self, total_loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Float32 [3]: the loss that is given, the score, and n, on the device; no step waits for them."""
        return torch.stack([total_loss, self.summed_score(logits, labels), total_loss.new_full((), len(labels))])

    def predictions(self, logits: Tensor) -> Tensor:
        """What metrics from elsewhere are given: probabilities, or the outputs themselves."""
        return logits

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Score and loss of all test images."""
        logits, labels = logits.cpu().double(), labels.cpu()
        sums = {self.score: self.summed_score(logits, labels), "loss": self.summed_loss(logits, labels)}
        return {name: value.item() / len(labels) for name, value in sums.items()}


class Classification(Task):
    """One of several classes, labels int64 [n]; cross-entropy, with label smoothing s: (1 − s)·CE + s·mean(−log p).

    What is reported is without smoothing. The accuracy is the share of images whose largest logit is the label's.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def problem(self, labels: Tensor) -> str:
        """Tell labels that are no class numbers."""
        return "" if labels.dim() == 1 else "takes int64 labels [n]"

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, with the label smoothing."""
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def summed_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, without the label smoothing."""
        return F.cross_entropy(logits, labels, reduction="sum")

    def summed_score(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The number of right answers."""
        return (logits.argmax(1) == labels).sum()

    def predictions(self, logits: Tensor) -> Tensor:
        """Probabilities of the classes."""
        return logits.softmax(1)

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Accuracy, where NaN logits are wrong answers, and loss."""
        loss = F.cross_entropy(logits.cpu().double(), labels.cpu()).item()
        return {"accuracy": accuracy(logits, labels), "loss": loss}


class Multilabel(Task):
    """Any number of labels at once, uint8 [n, names] of 0 and 1; binary cross-entropy, a mean over images and labels.

    The accuracy is the share of labels that are right, those answered with a probability above a half.
    """

    def problem(self, labels: Tensor) -> str:
        """Tell labels that are not zeros and ones."""
        fits = labels.dim() == 2 and ((labels == 0) | (labels == 1)).all()
        return "" if fits else "takes labels [n, names] of 0 and 1, as uint8"

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Binary cross-entropy of the logits."""
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))

    def summed_score(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Right labels, as shares of each image's."""
        return ((logits > 0) == (labels > 0)).float().mean(1).sum()

    def predictions(self, logits: Tensor) -> Tensor:
        """Probabilities of the labels."""
        return logits.sigmoid()


class Regression(Task):
    """Numbers, labels float32 [n, names]; mean squared error. The score is the mean absolute error, `mae`."""

    score = "mae"

    def problem(self, labels: Tensor) -> str:
        """Tell labels that are no finite numbers in columns."""
        fits = labels.dim() == 2 and labels.is_floating_point() and labels.isfinite().all()
        return "" if fits else "takes finite float32 labels [n, names]"

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The squared error, a mean over images and numbers."""
        return F.mse_loss(logits, labels.to(logits.dtype))

    def summed_score(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Absolute errors, means over each image's numbers."""
        return (logits - labels).abs().mean(1).sum()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest logit is the label's; NaN logits are wrong answers."""
    right = (logits.argmax(1) == labels) & logits.isfinite().all(1)
    return right.sum().item() / len(labels)


def task_for(labels: Tensor, component: Mapping[str, Any], label_smoothing: float = 0.0) -> Task:
    """The task that a configuration names; raises ConfigError where it does not fit a data set's labels."""
    key = f"task._target_={component['_target_']}"
    smoothing = {"label_smoothing": label_smoothing} if label_smoothing else {}
    if smoothing and not takes(component, "label_smoothing"):
        raise ConfigError([f"label_smoothing={label_smoothing}: {key} takes none; set 0"])
    task = instantiate(component, Task, "task", **smoothing)
    assert isinstance(task, Task)
    if problem := task.problem(labels):
        kind = str(labels.dtype).removeprefix("torch.")
        raise ConfigError([f"{key}: {problem}; those of this data set are {kind} {[*labels.shape]}"])
    return task


def metrics_for(labels: Tensor, task: Task, components: Mapping[str, Any], names: Sequence[str]) -> dict[str, Metric]:
    """The metrics of a configuration, tried on some labels; raises ConfigError as `metric_values` does."""
    taken = {"loss", task.score, f"{task.score}_tta"} & components.keys()
    if taken:
        raise ConfigError([f"metrics.{name}: is the name of another number" for name in sorted(taken)])
    metrics = {name: instantiate(part, Metric, f"metrics.{name}") for name, part in components.items() if part}
    metric_values(metrics, task.predictions(torch.zeros(len(labels[:100]), len(names))), labels[:100], names)
    return metrics


def metric_values(
    metrics: Mapping[str, Metric], predictions: Tensor, labels: Tensor, names: Sequence[str]
) -> dict[str, float]:
    """The values of torchmetrics' metrics for all images; of one with a value for each name: metric/name.

    Raises ConfigError for a metric that refuses predictions or labels, or that gives something else.
    """
    found: dict[str, float] = {}
    for key, metric in metrics.items():
        metric.sync_on_compute = False  # each process has the predictions for all images
        try:
            metric.reset()
            metric.update(predictions.cpu().nan_to_num(), labels.cpu())
            values = torch.as_tensor(metric.compute())
        except Exception as error:
            raise ConfigError([f"metrics.{key}: refuses this task's predictions ({reason_of(error)})"]) from error
        if values.dim() and values.shape != (len(names),):
            raise ConfigError([f"metrics.{key}: must give a number, or one for each of {', '.join(names)}"])
        keys = [f"{key}/{name}" for name in names] if values.dim() else [key]
        found |= zip(keys, values.reshape(-1).tolist(), strict=True)
    return found
