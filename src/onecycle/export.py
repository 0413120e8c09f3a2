"""`onecycle-export` writes a trained network as a file that other programs read, with a model card beside it.

  onecycle-export run=logs/runs/FOLDER format=onnx           or torch_export, safetensors
  onecycle-export run=last format=onnx output=model          a folder; without output= RUN/export
  onecycle-export run=last format=onnx images=photos/        check it on these images in place of drawn ones
  onecycle-export run=last format=onnx license=mit           the licence that the card names

The file takes float images [n, 3, h, w] from 0 to 1, any n, and gives logits [n, classes]: the normalisation is inside.
A safetensors file has weights, mean and std alone. Class names and the run's identity stand in the file's metadata.
What was written is read back and compared with the network on up to 100 images; the largest difference is printed.
"""

import copy
import importlib.util
import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from onecycle.config.types import Options
from onecycle.config.validate import options_of
from onecycle.errors import ConfigError, plain_command, storage_errors_named
from onecycle.predict import image_files
from onecycle.runs.record import metrics_text, write_atomically
from onecycle.runs.saved import with_run_folders

NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch_export": (), "safetensors": ("safetensors",)}
IMAGES, CLOSE = 100, 1e-3  # the logits of a file may differ by this much: its runtime may order the sums otherwise


class ExportOptions(Options):
    """The words of the command line."""

    run: str
    checkpoint: str = "last.ckpt"
    format: Literal["onnx", "torch_export", "safetensors"]
    output: str = ""
    images: str = ""
    license: str = "other"


def _onnx(network: Any, example: Any, path: Path, notes: dict[str, str]) -> Callable[[Any], Any]:
    import onnx
    import onnxruntime  # type: ignore[import-untyped]
    import torch

    shapes = ({0: torch.export.Dim("n", min=1)},)
    torch.onnx.export(
        network, (example,), path, dynamo=True, external_data=False, verbose=False, dynamic_shapes=shapes,
        input_names=["images"], output_names=["logits"],
    )  # fmt: skip
    model = onnx.load(path)
    onnx.helper.set_model_props(model, notes)
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _torch_export(network: Any, example: Any, path: Path, notes: dict[str, str]) -> Callable[[Any], Any]:
    import torch

    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
    torch.export.save(program, path, extra_files=dict(notes))
    return torch.export.load(path).module()


def _safetensors(network: Any, example: Any, path: Path, notes: dict[str, str]) -> Callable[[Any], Any]:
    from safetensors.torch import load_file, save_file

    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path, notes)
    again = copy.deepcopy(network)
    again.load_state_dict(load_file(path))
    return again


WRITERS = {
    "onnx": (_onnx, "onnx"),
    "torch_export": (_torch_export, "pt2"),
    "safetensors": (_safetensors, "safetensors"),
}


def export(options: ExportOptions) -> tuple[Path, float]:
    """Write the file and its card; returns the file and the largest difference of a logit.

    Raises ConfigError for a folder that holds no finished run, a missing package, or a file that answers otherwise.
    """
    missing = [name for name in NEEDED[options.format] if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            [f"format={options.format}: {', '.join(missing)} is not installed; pip install 'onecycle[export]' does"]
        )
    import torch

    from onecycle import load

    network = load(options.run, options.checkpoint)
    images = _images(network, options.images)
    folder = Path(options.output or Path(options.run) / "export")
    write, suffix = WRITERS[options.format]
    record, path = network.record, folder / f"{network.record['name']}.{suffix}"
    notes = {"classes": json.dumps(network.classes), "identity": record["identity"], "side": str(network.side)}
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        answer = write(network, images[:2], path, notes)
        difference = (answer(images) - network(images)).abs().max().item()
        alone = (answer(images[:1]) - network(images[:1])).abs().max().item()
    if not max(difference, alone) <= CLOSE:
        path.unlink()
        raise ConfigError([f"format={options.format}: the file's logits differ by {difference:.2g} from the network's"])
    write_atomically(folder / "README.md", card(network, path.name, difference, options))
    return path, difference


def _images(network: Any, places: str) -> Any:
    """Up to `IMAGES` float images [n, 3, side, side] from 0 to 1: those named, or else drawn ones."""
    import numpy as np
    import torch

    from onecycle.data.class_folders import decode_image
    from onecycle.data.synthetic import draw_images

    if places:
        try:
            pixels = np.stack([decode_image(path, network.side)[0] for path in image_files([places])[:IMAGES]])
        except ValueError as error:
            raise ConfigError([f"images={places}: {error}"]) from None
    else:
        pixels, _ = draw_images(IMAGES, 0, "test")
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return torch.nn.functional.interpolate(images, (network.side, network.side), mode="area")


def card(network: Any, file: str, difference: float, options: ExportOptions) -> str:
    """The model card: what model hubs read as YAML, then data, accuracy, recipe, hardware and date for people."""
    record = network.record
    data, test, h, name = record["data"], record["test"], record["hyperparameters"], json.dumps(record["name"])
    known = {key: value for key, value in test.items() if value is not None}
    point = ", ".join(
        f"{sign} {h[key]:g}"
        for sign, key in zip("λραN", ("peak_lr", "momentum", "weight_decay", "batch_size"), strict=True)
    )
    rows = {
        "file": f"{file} ({options.format})",
        "input": f"RGB images, floats from 0 to 1, [n, 3, {network.side}, {network.side}]",
        "output": f"logits [n, {len(network.classes)}]: {', '.join(network.classes)}",
        "data": f"{data['name']}: {data['train_size']:,} training images, {data['test_size']:,} test images",
        "test": metrics_text(known),
        "recipe": f"`onecycle-train {' '.join(record['overrides'])}`",
        "hyperparameters": f"{point}, {record['epochs']:g} epochs",
        "parameters": f"{record['parameters']:,}",
        "hardware": f"{record['device']}, {record['precision']}, fit {record['seconds']['fit']:.0f} s",
        "trained": record["started"][:10],
        "exported": f"{datetime.now():%Y-%m-%d}",
        "identity": record["identity"],
        "check": f"logits differ from the network's by at most {difference:.1e}",
    }
    head = [
        f"license: {options.license}", "library_name: pytorch", "pipeline_tag: image-classification",
        f"datasets: [{json.dumps(data['name'])}]", "tags: [onecycle, image-classification]", "model-index:",
        f"- name: {name}", "  results:", "  - task: {type: image-classification}",
        f"    dataset: {{name: {json.dumps(data['name'])}, type: {json.dumps(data['name'])}}}", "    metrics:",
        *(f"    - {{type: {key}, value: {value}}}" for key, value in known.items()),
    ]  # fmt: skip
    lines = [
        "---",
        *head,
        "---",
        f"# {record['name']}",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {text} |" for key, text in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Do what the words of the command line say; ends with 2 for one that is wrong."""
    with plain_command(__doc__), storage_errors_named("run this again"):
        path, difference = export(options_of(ExportOptions, with_run_folders(sys.argv[1:])))
        print(f"{path}: logits differ from the network's by at most {difference:.1e}")
