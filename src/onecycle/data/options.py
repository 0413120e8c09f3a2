"""Options of the data sources and of the augmentation: type, range and meaning of every key. No torch is imported."""

from typing import Literal

from pydantic import Field

from onecycle.config.types import CountOrZero, FolderName, FolderPath, Options, Seed


class CifarOptions(Options):
    """CIFAR-10 or CIFAR-100 (Krizhevsky, 2009)."""

    name: Literal["cifar10", "cifar100"] = Field(description="which of the two data sets")
    root: FolderPath = Field(description="folder that holds the original folder or tar.gz, or one of them itself")
    download: bool = Field(description="download the data set if it is missing or damaged")


class SyntheticOptions(Options):
    """The embedded data set, drawn by the program: ten classes of shapes and textures, 32×32 pixels."""

    train_size: int = Field(ge=10, le=10**6, description="number of training images")
    test_size: int = Field(ge=10, le=10**6, description="number of test images")
    seed: Seed = Field(description="seed of the drawn images")


class ImageFolderOptions(Options):
    """Images in class folders, train/<class>/* and test/<class>/*."""

    name: FolderName = Field(description="name of the data set, used for its cache and in records")
    root: FolderPath = Field(description="folder that holds train/ and test/")
    image_size: int = Field(
        ge=32, le=512, multiple_of=8, description="side in pixels to which the images are cropped and resized"
    )


class AugmentOptions(Options):
    """The random changes of each training image, limited by its side alone; 0 and "none" switch one off."""

    crop: CountOrZero = Field(description="pixels of reflected border, of which a random window is cropped")
    flip: Literal["none", "random", "alternating"] = Field(
        description="mirror images at random in every epoch, or in every other epoch, or never"
    )
    shift: CountOrZero = Field(description="largest random shift in pixels; the border left open is set to 0")
    cutout: CountOrZero = Field(description="side in pixels of a square that is set to 0, inside the image")


SOURCES: dict[str, type[Options]] = {
    "onecycle.data.sources.Cifar": CifarOptions,
    "onecycle.data.sources.Synthetic": SyntheticOptions,
    "onecycle.data.class_folders.ImageFolder": ImageFolderOptions,
}
