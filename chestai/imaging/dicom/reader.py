"""Reads one DICOM file: its header, whether it is a single frontal chest radiograph, and its grey levels.

Only a decoder process (`chestai.imaging.sandbox`) may import this. Refusals are decided by the header, before any pixel
is decoded, and so are the same for all that is asked of a file. Damaged data may raise anything.
"""

import datetime
import io
import re
import zlib  # before pydicom, which loads GDCM, whose own zlib would take its place
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.pixels import get_decoder
from pydicom.tag import Tag
from pydicom.uid import UID

from chestai.imaging.dicom.frames import check_frame, decode_frame
from chestai.imaging.dicom.grayscale import Stored, first, to_grey
from chestai.imaging.dicom.header import Facts, Identity, find_elements, has_vr
from chestai.imaging.dicom.syntaxes import DEFLATED, EXPLICIT, IMPLICIT, JPEG, NATIVE, RLE
from chestai.imaging.dicom.view import find_view, is_chest
from chestai.imaging.errors import MAX_PIXELS, Unreadable, check_size
from chestai.labels.demographics import OLDEST_YEARS, parse_age_years, parse_sex

RADIOGRAPHS = ("CR", "DX", "RG")  # PS3.3 C.7.3.1.1.1; RG is screen-film, digitised
# SOP classes (PS3.4 Annex B) of CR, DX for presentation and for processing, and of secondary captures
STORAGE = "1.2.840.10008.5.1.4.1.1"
SOP_CLASSES = (f"{STORAGE}.1", f"{STORAGE}.1.1", f"{STORAGE}.1.1.1", f"{STORAGE}.7")

PATIENT = ("PatientID", "PatientSex", "PatientAge", "PatientBirthDate")
IMAGE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "Modality", "BodyPartExamined")
DATES = ("StudyDate", "AcquisitionDate")
VIEW = ("ViewPosition", "ViewCodeSequence", "PatientOrientation", "SeriesDescription", "ProtocolName")
SHAPE = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
COUNTS = ("SamplesPerPixel", "NumberOfFrames", "PhotometricInterpretation", "PixelData")
PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
SCALE = ("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "PresentationLUTShape")
WINDOW = ("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction")
UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID")
KEYWORDS = (*PATIENT, *IMAGE, *DATES, *VIEW, *SHAPE, *COUNTS, *PADDING, *SCALE, *WINDOW)


def read_facts(data: bytes) -> Facts:
    """Reads the header of a file. Raises `Unreadable` as `open_dataset`."""
    return find_facts(open_dataset(data))


def find_facts(dataset: Dataset) -> Facts:
    """The facts of an open file."""
    days = (day for keyword in DATES if (day := _date(dataset, keyword)) is not None)
    return Facts(
        image_id=_text(dataset, "SOPInstanceUID") or _text(dataset.file_meta, "MediaStorageSOPInstanceUID") or None,
        patient_id=_text(dataset, "PatientID") or None,
        study_id=_text(dataset, "StudyInstanceUID") or None,
        age_years=_age(dataset),
        sex=parse_sex(_text(dataset, "PatientSex")),
        view=find_view(dataset)[1],
        height=dataset.Rows,
        width=dataset.Columns,
        studied_on=next((day.isoformat() for day in days), None),
    )


def decode(dataset: Dataset) -> NDArray[np.uint8]:
    """The grey levels (H, W) of an open file. Raises `Unreadable` for damaged pixels and impossible grey scales."""
    return to_grey(dataset, _stored(dataset))


def read_identity(data: bytes) -> Identity:
    """Reads which object a file is. Raises Unreadable: It is deflated, or its header does not say."""
    file, _, syntax = _open(data)
    if syntax == DEFLATED:
        raise Unreadable("unsupported_format", "deflated data may be far larger than the file")
    dataset = read_dataset(
        file, syntax.is_implicit_VR, syntax.is_little_endian, specific_tags=[Tag(keyword) for keyword in UIDS]
    )
    found = [_text(dataset, keyword) for keyword in UIDS]
    if not all(found):
        raise Unreadable("undecodable", "the header lacks the UID of its class, instance or study")
    sop_class, instance, study = found
    return Identity(sop_class, instance, study, str(syntax))


def open_dataset(data: bytes) -> Dataset:
    """Parses the `KEYWORDS` of a file.

    Raises:
        Unreadable: Anything but a whole, single frontal chest radiograph.
    """
    file, meta, syntax = _open(data)
    if syntax == DEFLATED:
        file = io.BytesIO(_inflated(file.read()))
    tags = [Tag(keyword) for keyword in KEYWORDS]
    dataset = read_dataset(file, syntax.is_implicit_VR, syntax.is_little_endian, specific_tags=[*tags])
    meta.TransferSyntaxUID = syntax
    dataset.file_meta = FileMetaDataset(meta)
    _check_content(dataset)
    _check_shape(dataset)
    _check_whole(dataset)
    return dataset


def _open(data: bytes) -> tuple[io.BytesIO, Dataset, UID]:
    """Reads the file meta information, if there is any. Returns the rest of the file, that information, and the syntax.

    Raises:
        Unreadable: There is no decoder for the syntax.
    """
    start, file = find_elements(data) or 0, io.BytesIO(data)
    file.seek(start)
    meta = Dataset()
    if data[start : start + 2] == b"\2\0":
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    syntax = UID(_text(meta, "TransferSyntaxUID") or _guess_syntax(data[file.tell() :][:8]))
    if syntax not in (*NATIVE, *JPEG, RLE):
        raise Unreadable("unsupported_format", "no decoder for the file's transfer syntax")
    return file, meta, syntax


def _guess_syntax(element: bytes) -> str:
    """The transfer syntax of a file that does not name it, by its first element: one of little endian."""
    if len(element) < 8 or element[1:2] + element[3:4] != b"\0\0":
        raise Unreadable("not_an_image", "no DICOM header after the DICOM prefix")
    return EXPLICIT if has_vr(element) else IMPLICIT


def _inflated(packed: bytes) -> bytes:
    """The data set of a deflated file (PS3.5 A.5), up to the largest that an image can be."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflater.decompress(packed, 2 * MAX_PIXELS + 2**24)
    if inflater.unconsumed_tail:
        raise Unreadable("too_large", "the deflated data are larger than an image can be")
    if not inflater.eof:
        raise Unreadable("truncated", "the deflated data have no end")
    return data


def _check_content(dataset: Dataset) -> None:
    """Rejects anything but a frontal chest radiograph. Anonymised files may say nothing of modality, part and view."""
    modality = _text(dataset, "Modality").upper()
    kind = _text(dataset, "SOPClassUID") or _text(dataset.file_meta, "MediaStorageSOPClassUID")
    if modality not in RADIOGRAPHS if modality else kind not in ("", *SOP_CLASSES):
        raise Unreadable("not_a_radiograph", f"the modality is none of {', '.join(RADIOGRAPHS)}")
    if "PixelData" not in dataset:
        raise Unreadable("truncated", "there are no pixel data, or not to their end")
    if not is_chest(_text(dataset, "BodyPartExamined")):
        raise Unreadable("not_a_chest", "the body part examined is not the chest")
    if not find_view(dataset)[0]:
        raise Unreadable("not_frontal", "the header says that the view is lateral, oblique, decubitus or special")


def _check_shape(dataset: Dataset) -> None:
    """Rejects anything but one grey image of a usable size (PS3.3 C.7.6.3, PS3.5 8.1.1)."""
    photometric = _text(dataset, "PhotometricInterpretation")
    if _number(dataset, "SamplesPerPixel") != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Unreadable("colour", "neither MONOCHROME1 nor MONOCHROME2 of one sample a pixel")
    if int(first(dataset, "NumberOfFrames") or 1) > 1:
        raise Unreadable("multi_frame", "the file has more than one frame")
    check_size(_number(dataset, "Rows"), _number(dataset, "Columns"))
    allocated, stored = _number(dataset, "BitsAllocated"), _number(dataset, "BitsStored")
    if allocated not in (8, 16) or not 1 <= stored <= allocated or _number(dataset, "HighBit") != stored - 1:
        raise Unreadable("unsupported_format", f"{stored} bits stored in {allocated}")
    if _number(dataset, "PixelRepresentation") not in (0, 1):
        raise Unreadable("undecodable", "an unknown pixel representation")


def _check_whole(dataset: Dataset) -> None:
    """Rejects pixel data of another length than the image's: a decoder might fill up or shear it."""
    if dataset.file_meta.TransferSyntaxUID not in NATIVE:
        check_frame(dataset)
        return
    data = dataset.PixelData or b""
    expected = dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8
    if len(data) < expected:
        raise Unreadable("truncated", f"{len(data)} bytes of pixel data, not {expected}")
    if len(data) > expected + expected % 2:
        raise Unreadable("undecodable", f"{len(data)} bytes of pixel data for an image of {expected}")


def _stored(dataset: Dataset) -> Stored:
    """The pixel values as stored, (H, W), in the byte order of this machine."""
    if (decoded := decode_frame(dataset)) is not None:
        return decoded
    array, _ = get_decoder(dataset.file_meta.TransferSyntaxUID).as_array(dataset, index=0)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _age(dataset: Dataset) -> float | None:
    """Patient's Age, or the whole years from birth to study; None if neither gives a possible age."""
    age = _text(dataset, "PatientAge").upper()
    if age:
        return parse_age_years(age)
    born, studied = _date(dataset, "PatientBirthDate"), _date(dataset, "StudyDate")
    if born is None or studied is None:
        return None
    years = studied.year - born.year - ((studied.month, studied.day) < (born.month, born.day))
    return float(years) if 0 <= years <= OLDEST_YEARS else None


def _date(dataset: Dataset, keyword: str) -> datetime.date | None:
    text = _text(dataset, keyword)
    try:
        return datetime.datetime.strptime(text, "%Y%m%d").date() if re.fullmatch(r"\d{8}", text) else None
    except ValueError:
        return None


def _number(dataset: Dataset, keyword: str) -> int:
    """A number that every image has."""
    value: Any = first(dataset, keyword)
    if not isinstance(value, int):
        raise Unreadable("undecodable", f"the header has no valid {keyword}")
    return value


def _text(dataset: Dataset, keyword: str) -> str:
    """The first value of a text element without its padding; empty if there is none."""
    return str(first(dataset, keyword) or "").strip(" \0")
