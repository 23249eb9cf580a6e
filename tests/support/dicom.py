"""Builds DICOM files for tests."""

import io
import zlib  # noqa: F401  (before gdcm, whose own zlib would take its place)
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from pydicom import Dataset, uid
from pydicom.config import disable_value_validation
from pydicom.dataset import FileMetaDataset


def film(seed: int, **elements: Any) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 4096, (64, 72), np.uint16)
    about = {
        "PatientName": "Doe^Secret",
        "PatientBirthDate": "19501224",
        "StudyDate": "20201224",
        "PatientSex": "F",
        "ViewPosition": "PA",
        "BodyPartExamined": "CHEST",
    }
    return a_file(pixels, **{**about, **elements})


def instance(number: int, patient: str, **elements: Any) -> dict[str, Any]:
    return {"SOPInstanceUID": f"1.2.{number}", "StudyInstanceUID": f"1.9.{number}", "PatientID": patient, **elements}


TWELVE = (np.add.outer(np.arange(64) * 20, np.arange(80) * 30) + 3).astype(np.uint16)  # 3 to 3633
EIGHT = (TWELVE >> 4).astype(np.uint8)
SIGNED = TWELVE.astype(np.int16) - 1000


def header(image: np.ndarray, bits: int, **elements: Any) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uid.UID("1.2.3.4")
    meta.TransferSyntaxUID = elements.pop("syntax", uid.ExplicitVRLittleEndian)
    dataset = Dataset()
    dataset.file_meta, dataset.preamble = meta, bytes(128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3.4"
    dataset.StudyInstanceUID, dataset.PatientID, dataset.Modality = "1.2.3", "p1 ", "DX"
    dataset.Rows, dataset.Columns = image.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * image.itemsize, bits, bits - 1
    dataset.PixelRepresentation = int(image.dtype.kind == "i")
    dataset.add_new("PixelData", "OW" if image.itemsize == 2 else "OB", image.tobytes())
    with disable_value_validation():
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
    return dataset


def written(dataset: Dataset) -> bytes:
    file = io.BytesIO()
    with disable_value_validation():
        dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def a_file(image: np.ndarray = TWELVE, bits: int = 12, **elements: Any) -> bytes:
    return written(header(image, bits, **elements))


def compressed(folder: Path, data: bytes, syntax: int) -> bytes:
    path = str(folder / "image.dcm")
    Path(path).write_bytes(data)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(path)
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetFileName(path)
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return Path(path).read_bytes()
