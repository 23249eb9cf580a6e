"""The official split of a source in text files that list image names, whatever they are called and however written."""

import re
from collections.abc import Mapping, Sequence

from chestai.errors import UserError
from chestai.lake.files import decode_text
from pipelines.data.files import InputFolder
from pipelines.spark.splits import TEST, TRAIN_VAL

# Names of published lists; others are recognised by their words.
LISTS = {TRAIN_VAL: "train_val_list.txt", TEST: "test_list.txt"}
LIST_NAME = re.compile(r"(?i)\.(txt|csv|lst)$")
WORDS = {TRAIN_VAL: {"train", "training", "trainval", "val", "valid", "validation"}, TEST: {"test", "testing"}}
HINTS = {"list", "lists", "split", "splits"}  # of which a list's name has one

IMAGE = re.compile(r"(?i)^(\d{1,8}_\d{3})(?:\.\w+)?$")  # an image, with or without a suffix
HEADER = re.compile(r"(?i)^(image|file|name|id|path)")


def find_lists(folder: InputFolder, present: Sequence[str]) -> dict[str, list[str]]:
    """Return the split lists among the files of a folder: `train_val` and `test` with their files, or neither.

    Raises:
        UserError: One of the two is missing, or several files could be the test list.
    """
    found = {split: [name for name in present if name == LISTS[split]] for split in LISTS}
    if not any(found.values()):
        found = {split: [name for name in present if _split_of(name) == split] for split in LISTS}
    for split, other in ((TRAIN_VAL, TEST), (TEST, TRAIN_VAL)):
        if not found[split]:
            found[split] = [name for name in present if _split_of(name) == split] if found[other] else []
        if found[other] and not found[split]:
            where = folder.location(found[other][0])
            raise UserError(f"{where} is alone: add the other split list or remove this one")
    if len(found[TEST]) > 1:
        raise UserError(f"{' and '.join(found[TEST])} of {folder.uri} could both be the test list: remove one")
    return {split: names for split, names in found.items() if names}


def _split_of(name: str) -> str | None:
    """The split that a file's name says it lists."""
    words = {*re.findall(r"[a-z]+", name.lower())}
    splits = [split for split, of_split in WORDS.items() if words & of_split]
    return splits[0] if LIST_NAME.search(name) and words & HINTS and len(splits) == 1 else None


def read_lists(folder: InputFolder, lists: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Read the lists: image name without suffix -> `train_val` or `test`.

    Raises:
        UserError: A line names no image, or an image is in lists of both.
    """
    listed: dict[str, str] = {}
    for split, names in lists.items():
        for name in names:
            for image in parse_list(folder.location(name), folder.read(name)):
                if listed.setdefault(image, split) != split:
                    both = " and ".join(name for names in lists.values() for name in names)
                    raise UserError(f"{image} is in both {both} of {folder.uri}: remove it from one")
    return listed


def parse_list(location: str, data: bytes) -> list[str]:
    """Return the image names of a list, without suffix. A line may have a folder before the name and labels behind it.

    Raises:
        UserError: A line names no image.
    """
    images = []
    for number, line in enumerate(decode_text(data).splitlines(), 1):
        fields = [field.strip("\"' ") for field in re.split(r"[\s,;|]+", line.strip())]
        places = [re.split(r"[/\\]", field)[-1] for field in fields]
        image = next((match[1] for place in places[:2] if (match := IMAGE.match(place))), None)
        if image:
            images.append(image)
        elif line.strip() and not (number == 1 and any(map(HEADER.match, fields))):
            raise UserError(
                f"{location} line {number} is {line[:60]!r}: a list has one image a line, such as 00000001_000.png"
            )
    return images
