"""What the folders of a path say: the class, the split, or that a file is no image of a class."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from chestai.labels.findings import KNOWN_FINDINGS, NO_FINDING, canonicalise
from pipelines.spark.splits import TEST, TRAIN_VAL

# Words that name a split, and words that may stand beside them or name a folder of images of any class.
TRAIN_WORDS = ("train", "training", "trainset", "trn", "val", "valid", "validation", "valset", "dev", "trainval")
SPLIT_WORDS = {**dict.fromkeys(TRAIN_WORDS, TRAIN_VAL), **dict.fromkeys(("test", "testing", "testset", "tst"), TEST)}
IMAGE_WORDS = {"image", "images", "img", "imgs", "cxr", "cxrs", "xray", "xrays", "png", "pngs", "jpg", "jpeg", "jpegs"}
NEUTRAL_WORDS = {*IMAGE_WORDS, "set", "data", "dataset", "split", "folder", "chest", "x", "ray", "rays", "files"}

Folders = tuple[str, ...]  # the folders of a file, from the outermost


def find_split(folder: str) -> str | None:
    """Return the split that a folder names (`Training`, `test_set`, `CXR-val 2`), or None."""
    words = _words(folder)
    splits = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    others = {*words} - SPLIT_WORDS.keys() - NEUTRAL_WORDS
    return splits.pop() if len(splits) == 1 and not others else None


def is_neutral(folder: str) -> bool:
    """Whether a folder's name says no more than that images are in it."""
    words = _words(folder)
    return bool(words) and {*words} <= NEUTRAL_WORDS


def is_mask(folder: str) -> bool:
    """Whether a folder names masks: `masks`, `lung masks`, `leftMask`."""
    return any(word.endswith(("mask", "masks")) for word in _words(folder))


def _words(folder: str) -> list[str]:
    return re.findall(r"[a-z]+", folder.lower())


@dataclass(frozen=True)
class ImageLocation:
    """Where an image lies: its path, its class folder (None without) and the split that its folders name."""

    path: str
    folder: str | None
    listed: str | None


@dataclass(frozen=True)
class FolderLayout:
    """The folders of a set of one folder per class.

    Attributes:
        paths: Of all image files.
        classes: Class folders that the user names, whatever they look like; None to recognise them.
    """

    paths: Sequence[str]
    classes: Collection[str] | None = None
    _wrappers: dict[Folders, bool] = field(default_factory=dict)

    def locate(self, path: str) -> ImageLocation:
        """Read class and split from a path.

        The class is the outermost folder that neither names a split nor is neutral nor holds class folders itself.
        """
        found, splits = [], []
        folders = _folders(path)
        for depth, folder in enumerate(folders, 1):
            split = None if folder in (self.classes or ()) else find_split(folder)
            if split:
                splits.append(split)
            elif self._is_class(folders[:depth]):
                found.append(folder)
        return ImageLocation(path, next(iter(found), None), next(iter(splits), None))

    def _is_class(self, folders: Folders) -> bool:
        if self.classes is not None:
            return folders[-1] in self.classes
        return not is_neutral(folders[-1]) and not self.is_wrapper(folders)

    def is_wrapper(self, folders: Folders) -> bool:
        """Whether a folder, which names no split, holds class folders, as that of an archive does, and is no class."""
        if find_split(folders[-1]):
            return False
        if folders not in self._wrappers:
            self._wrappers[folders] = self._holds_classes(folders)
        return self._wrappers[folders]

    def _holds_classes(self, folders: Folders) -> bool:
        splits = [name for name in self._inner[folders] if find_split(name)]
        in_splits = _class_like(name for split in splits for name in self._inner[(*folders, split)])
        inner, beside = _class_like(self._inner[folders]) - {*splits}, self._inner[folders[:-1]]
        findings = {canonicalise(name) for name in inner | in_splits}
        if NO_FINDING in findings:
            return True
        if canonicalise(folders[-1]) in (*KNOWN_FINDINGS, NO_FINDING):
            return False
        repeats = bool(inner) and inner <= beside
        alone = beside == {folders[-1]} and len(inner) > 1 and folders not in self._with_files
        return not findings.isdisjoint(KNOWN_FINDINGS) or bool(in_splits) or repeats or alone

    def find_companions(self) -> dict[str, bool]:
        """Find files that accompany images: masks, and what lies beside a folder `images` under an image's name.

        Returns:
            Path -> whether an image of the same name is there.
        """
        masks = {path for path in self.paths if self._is_in_mask_folder(path)}
        stems = {_stem(path) for path in self.paths if path not in masks}
        companions = {path: bool({_stem(path), _strip_mask(path)} & stems) for path in self.paths if path in masks}
        for path in self.paths:
            is_mask_of_image = _strip_mask(path) != _stem(path) and _strip_mask(path) in stems
            if path not in masks and (is_mask_of_image or self._lies_beside_its_image(path)):
                companions[path] = True
        return companions

    def _is_in_mask_folder(self, path: str) -> bool:
        return any(is_mask(folder) and folder not in (self.classes or ()) for folder in _folders(path))

    def _lies_beside_its_image(self, path: str) -> bool:
        """Whether a class folder holds a folder of images with this file's name, and the file lies in another one."""
        *above, last = _folders(path) or ("",)
        parent = tuple(above)
        if not parent or is_neutral(last) or last in (self.classes or ()) or not self._is_class(parent):
            return False
        return any((*parent, name, _stem(path)) in self._places for name in self._inner[parent] if is_neutral(name))

    @cached_property
    def _inner(self) -> defaultdict[Folders, set[str]]:
        """The folders in each folder."""
        inner: defaultdict[Folders, set[str]] = defaultdict(set)
        for folders in {_folders(path) for path in self.paths}:
            for depth, folder in enumerate(folders):
                inner[folders[:depth]].add(folder)
        return inner

    @cached_property
    def _with_files(self) -> set[Folders]:
        return {_folders(path) for path in self.paths}

    @cached_property
    def _places(self) -> set[Folders]:
        """The folders and the stem of each file."""
        return {(*_folders(path), _stem(path)) for path in self.paths}


def _folders(path: str) -> Folders:
    return tuple(path.split("/")[:-1])


def _class_like(names: Iterable[str]) -> set[str]:
    return {name for name in names if not is_neutral(name) and not is_mask(name)}


def _stem(path: str) -> str:
    return PurePosixPath(path).stem


def _strip_mask(path: str) -> str:
    """The stem without the word `mask` at its end."""
    return re.sub(r"(?i)[ _-]masks?$", "", _stem(path))
