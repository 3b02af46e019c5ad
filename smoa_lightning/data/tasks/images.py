"""Images with a class: five data sets of SURM (arXiv 2406.17740), scikit-learn's digits, and your own images.

A new head predicts the class. The hub's schema of each data set is that of its Parquet files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.tasks.base import Classification, ImageExample, Row, Task
from smoa_lightning.data.tasks.image_field import Picture, image_key
from smoa_lightning.data.tasks.label_fields import ClassLabel


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
STL10_NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
CIFAR100_NAMES = _words(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"""
)
DTD_NAMES = _words(
    """banded blotchy braided bubbly bumpy chequered cobwebbed cracked crosshatched crystalline dotted fibrous flecked
    freckled frilly gauzy grid grooved honeycombed interlaced knitted lacelike lined marbled matted meshed paisley
    perforated pitted pleated polka-dotted porous potholed scaly smeared spiralled sprinkled stained stratified
    striped studded swirly veined waffled woven wrinkled zigzagged"""
)
SUN397_NAMES = tuple(map(str, range(397)))  # the package has no list of the scenes
DIGITS = tuple("0123456789")
SHAPES = ("circle", "square", "triangle", "cross", "ring", "frame", "bar", "crescent")  # of the embedded rows


def _task(
    name: str,
    names: Sequence[str],
    repository: tuple[str, str] | None,
    reference: str,
    fields: tuple[str, str] = ("image", "label"),
    splits: Sequence[str] = ("train", "test"),
    report_split: str = "test",
    licence: str = "not stated; for research",
    unread: Sequence[str] = (),
) -> Task:
    """Return a task with an image and a class; ``fields`` are the names of both columns in its files."""
    image, label = fields

    def example(row: Row) -> ImageExample:
        return ImageExample(row[image], row[label])

    def group(row: Row) -> str:
        return image_key(row[image])

    return Task(
        name=name,
        version=1,
        hub_repository=repository and repository[0],
        hub_revision=repository and repository[1],
        schema={image: Picture(), label: ClassLabel(tuple(names))},
        reads=unread,
        labelling=Classification(example, tuple(names), inputs="images"),
        group=group,
        licence=licence,
        reference=reference,
        splits=splits,
        report_split=report_split,
    )


CIFAR10 = _task(
    "cifar10",
    CIFAR10_NAMES,
    ("uoft-cs/cifar10", "0b2714987fa478483af9968de7c934580d0bb9a2"),
    "Krizhevsky 2009",
    ("img", "label"),
)
CIFAR100 = _task(
    "cifar100",
    CIFAR100_NAMES,
    ("uoft-cs/cifar100", "aadb3af77e9048adbea6b47c21a81e47dd092ae5"),
    "Krizhevsky 2009",
    ("img", "fine_label"),
    unread=("coarse_label",),
)
SUN397 = _task(
    "sun397",
    SUN397_NAMES,
    ("dpdl-benchmark/sun397", "7e6af6a2499ad708618be868e1471eac0aca1168"),
    "Xiao et al. 2010, doi:10.1109/CVPR.2010.5539970",
    splits=("train", "validation", "test"),
)
DTD = _task("dtd", DTD_NAMES, ("tanganke/dtd", "d2afa97d9f335b1a6b3b09c637aef667f98f966e"), "arXiv:1311.3618")
STL10 = _task(
    "stl10",
    STL10_NAMES,
    ("tanganke/stl10", "49ae7f94508f7feae62baf836db284306eab0b0f"),
    "Coates, Ng and Lee 2011",
)
DIGIT_IMAGES = _task(
    "digits", DIGITS, None, "Alpaydin and Kaynak 1998, doi:10.24432/C50P49", licence="CC BY 4.0", report_split="test"
)
IMAGE_CLASSIFICATION = _task(
    "image_classification",
    SHAPES,
    None,
    "rows of one's own",
    splits=("train", "validation", "test"),
    report_split="validation",
    licence="that of the rows",
)
IMAGES = (CIFAR10, CIFAR100, SUN397, DTD, STL10, DIGIT_IMAGES, IMAGE_CLASSIFICATION)


def with_class_names(task: Task, names: Sequence[str] | None) -> Task:
    """Return a task for your own images with the names of its classes, in the order of the labels.

    Args:
        task: The task ``image_classification``.
        names: The names; None keeps those of the embedded rows.

    Raises:
        UserError: fewer than two names, or a name twice.
    """
    if names is None:
        return task
    twice = [name for name in dict.fromkeys(names) if list(names).count(name) > 1]
    if len(names) < 2 or twice:
        fault = f"has {twice[0]!r} twice" if twice else f"has {len(names)} name(s)"
        raise UserError(f"data.class_names {fault}, but must name each class once, and at least two classes")
    protocol = task.labelling
    assert isinstance(protocol, Classification)
    label = ClassLabel(tuple(names))
    return replace(
        task,
        schema={**task.schema, "label": label},
        labelling=replace(protocol, names=tuple(names)),
        options={**task.options, "class_names": list(names)},
    )
