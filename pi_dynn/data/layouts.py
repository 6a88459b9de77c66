"""Known data sets by name: classes, images and folders of a complete copy, to detect incomplete downloads."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pi_dynn.data.cifar import CLASSES as CIFAR_CLASSES
from pi_dynn.data.cifar import cifar_folder, open_cifar
from pi_dynn.data.folders import ImageFolder, load_split, open_image_folder, walk_images
from pi_dynn.errors import DatasetError

HELD_OUT = ("test", "val", "valid", "validation")  # names of the folder beside `train`


@dataclass(frozen=True)
class Layout:
    """One published data set.

    `classes` is empty if the list is too long to keep here. `held_out` is the published size of the held-out part;
    `folders` are names below the root in which copies have their class folders; `others` are names it also has.
    """

    name: str
    title: str
    num_classes: int
    images: int
    held_out: int
    image_size: int
    classes: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def per_class(self) -> int | None:
        """Images of each class; None where classes differ in size."""
        return self.images // self.num_classes if self.images % self.num_classes == 0 and self.name != "aid" else None

    @property
    def held_out_share(self) -> float:
        """The held-out share of the published split."""
        return self.held_out / self.images

    def expected(self) -> str:
        """A description of a complete copy, for error messages."""
        each = f"{self.per_class} images each" if self.per_class else f"{self.images:,} images in all"
        return f"{self.title}: {self.num_classes} class folders, {each}, {self.image_size} px"


_NASC = "beach circularfarmland cloud desert forest mountain rectangularfarmland residential river snowberg"
_UCM = (
    "agricultural airplane baseballdiamond beach buildings chaparral denseresidential forest freeway golfcourse harbor "
    "intersection mediumresidential mobilehomepark overpass parkinglot river runway sparseresidential storagetanks "
    "tenniscourt"
)
_AID = (
    "Airport BareLand BaseballField Beach Bridge Center Church Commercial DenseResidential Desert Farmland Forest "
    "Industrial Meadow MediumResidential Mountain Park Parking Playground Pond Port RailwayStation Resort River School "
    "SparseResidential Square Stadium StorageTanks Viaduct"
)
_PATTERNNET = (
    "airplane baseball_field basketball_court beach bridge cemetery chaparral christmas_tree_farm closed_road "
    "coastal_mansion crosswalk dense_residential ferry_terminal football_field forest freeway golf_course harbor "
    "intersection mobile_home_park nursing_home oil_gas_field oil_well overpass parking_lot parking_space railway "
    "river runway runway_marking shipping_yard solar_panel sparse_residential storage_tank swimming_pool tennis_court "
    "transformer_station wastewater_treatment_plant"
)
_RESISC = (
    "airplane airport baseball_diamond basketball_court beach bridge chaparral church circular_farmland cloud "
    "commercial_area dense_residential desert forest freeway golf_course ground_track_field harbor industrial_area "
    "intersection island lake meadow medium_residential mobile_home_park mountain overpass palace parking_lot railway "
    "railway_station rectangular_farmland river roundabout runway sea_ice ship snowberg sparse_residential stadium "
    "storage_tank tennis_court terrace thermal_power_station wetland"
)

# Sizes: the papers of the sets; held-out parts: 20 % as in the published results, or the set's own.
LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("nasc-tg2", "NaSC-TG2", 10, 20_000, 4_000, 128, tuple(_NASC.split()), ("NaSC-TG2", "RGB"), ("nasc",)),
        Layout(
            "patternnet", "PatternNet", 38, 30_400, 6_080, 256, tuple(_PATTERNNET.split()), ("PatternNet", "images")
        ),
        Layout(
            "resisc45",
            "NWPU-RESISC45",
            45,
            31_500,
            6_300,
            256,
            tuple(_RESISC.split()),
            ("NWPU-RESISC45",),
            ("nwpu", "nwpu-45"),
        ),
        Layout(
            "ucm",
            "UC Merced Land Use",
            21,
            2_100,
            420,
            256,
            tuple(_UCM.split()),
            ("UCMerced_LandUse", "Images"),
            ("UCMerced",),
        ),
        Layout("aid", "AID", 30, 10_000, 2_000, 600, tuple(_AID.split()), ("AID", "AID_dataset")),
        Layout("cifar10", "CIFAR-10", 10, 60_000, 10_000, 32, CIFAR_CLASSES),
        Layout("imagenet", "ImageNet (ILSVRC2012)", 1000, 1_331_167, 50_000, 224),
    )
}


@dataclass(frozen=True)
class OpenedData:
    """A data set, and the published held-out part if there is one."""

    data: ImageFolder
    held_out: ImageFolder | None = None

    @property
    def images(self) -> int:
        """The number of images of both parts."""
        return len(self.data) + (0 if self.held_out is None else len(self.held_out))

    def part(self, name: str, split: str | Path | None = None) -> ImageFolder:
        """The images of a part of a written split; without a split those to judge by, which are not for training.

        Those are the published held-out part, or all images where there is none; `train` is what a set with parts of
        its own has beside them. A split is of the training images of such a set, whose part `test` is its own.

        Raises: DatasetError for a part that the split does not have, or images of it that are missing.
        """
        own = {} if self.held_out is None else {"test": self.held_out}
        if split is None:
            judged = self.data if self.held_out is None else self.held_out
            return self.data if name == "train" else judged
        parts = load_split(split, self.data) | own
        if name not in parts:
            raise DatasetError(f"{split}: has no part {name!r}, only {', '.join(parts)}")
        return parts[name]


def layout_named(name: str) -> Layout:
    """The layout of that name, ignoring case and punctuation. Raises DatasetError."""
    for layout in LAYOUTS.values():
        if _plain(name) in map(_plain, (layout.name, layout.title, *layout.others)):
            return layout
    raise DatasetError(f"no data set is named {name!r}: choose from {', '.join(LAYOUTS)}")


def open_data(root: str | Path, name: str | None = None, partial: bool = False) -> OpenedData:
    """The labelled images below `root`: a folder per class, `train` and `test` folders of such, or CIFAR-10 batches.

    The class folders of a published set are found one or two levels down, as they are unpacked. With a `name` the copy
    is compared with that published set, and must be complete unless `partial` is set.

    Raises: DatasetError for another kind of folder; for a named set also for missing or unknown classes and images.
    """
    root = Path(root)
    layout = None if name is None else layout_named(name)
    if not root.is_dir():
        expected = "" if layout is None else f"; expected there {layout.expected()}"
        raise DatasetError(f"{root}: no such folder; give a folder that holds one folder per class{expected}")
    batches = cifar_folder(root)
    if batches is not None:
        parts = open_cifar(batches)
        opened = OpenedData(parts["train"], parts["test"])
    else:
        opened = _open_folders(root, layout or detected_layout(root))
    if layout is not None:
        check_whole(opened, layout, partial)
    return opened


def open_images(root: str | Path, name: str | None = None, partial: bool = False) -> ImageFolder:
    """The images to measure with: those of a data set to judge by, or all below another folder, which have no class.

    Raises: DatasetError as `open_data`, or for a folder without images; InputError for one that cannot be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; give a folder of images")
    if name is not None or cifar_folder(root) or _parts(root) or detected_layout(root):
        return open_data(root, name, partial).part("test")
    paths = list(walk_images(root))
    if not paths:
        raise DatasetError(f"{root}: the folder holds no images; add some, or give another")
    classes = sorted({path.parent.name for path in paths})
    return ImageFolder(root, classes, paths, [classes.index(path.parent.name) for path in paths])


def detected_layout(root: Path) -> Layout | None:
    """The published set whose classes the folders at `root` or below are, in the folders it is unpacked to."""
    for layout in LAYOUTS.values():
        names = {_plain(path.name) for path in _below(root, layout).iterdir() if path.is_dir()}
        if layout.classes and names == {_plain(name) for name in layout.classes}:
            return layout
    return None


def _below(root: Path, layout: Layout | None) -> Path:
    """Where a copy has its class folders: it may keep them one or two levels down."""
    while layout is not None:
        deeper = next((root / name for name in layout.folders if (root / name).is_dir()), None)
        if deeper is None:
            break
        root = deeper
    return root


def _parts(place: Path) -> tuple[Path, Path] | None:
    """The folders of a set with parts of its own."""
    held_out = next((place / name for name in HELD_OUT if (place / name).is_dir()), None)
    return (place / "train", held_out) if held_out is not None and (place / "train").is_dir() else None


def _open_folders(root: Path, layout: Layout | None) -> OpenedData:
    place = _below(root, layout)
    parts = _parts(place)
    try:
        if parts is None:
            return OpenedData(open_image_folder(place))
        train, other = map(open_image_folder, parts)
    except DatasetError as error:
        if layout is None:
            raise
        raise DatasetError(f"{error}; expected {layout.expected()}") from error
    if train.classes != other.classes:
        strange = sorted(set(train.classes) ^ set(other.classes))[0]
        raise DatasetError(f"{place}: train and {parts[1].name} differ in their classes, first {strange!r}")
    return OpenedData(train, other)


def check_whole(opened: OpenedData, layout: Layout, partial: bool = False) -> None:
    """Check an opened copy against the published set.

    Raises: DatasetError for missing or unknown classes and, unless `partial`, for missing images.
    """
    data = opened.data
    known = {_plain(name) for name in layout.classes}
    present = {_plain(name) for name in data.classes}
    if known and present != known:
        missing = [name for name in layout.classes if _plain(name) not in present]
        strange = [name for name in data.classes if _plain(name) not in known]
        lacks = (
            f"lacks {len(missing)} classes, first {missing[0]!r}" if missing else f"has a strange class {strange[0]!r}"
        )
        raise DatasetError(f"{data.root}: {lacks}; expected {layout.expected()}")
    if len(data.classes) != layout.num_classes:
        raise DatasetError(f"{data.root}: has {len(data.classes)} classes; expected {layout.expected()}")
    if partial or opened.images == layout.images:
        return
    short = ""
    if layout.per_class and opened.held_out is None:
        counts = [data.labels.count(label) for label in range(len(data.classes))]
        fewest = min(range(len(counts)), key=counts.__getitem__)
        short = f", {data.classes[fewest]!r} only {counts[fewest]}"
    raise DatasetError(
        f"{data.root}: has {opened.images:,} of {layout.images:,} images{short}; expected {layout.expected()}; "
        "copy the rest, or allow a part with --partial"
    )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
