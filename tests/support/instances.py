"""DICOM instances for tests, made in memory."""

from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gdcm
import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

PYDICOM_DATA = Path(pydicom.__file__).parent / "data"


def pydicom_files() -> list[Path]:
    """Every file that may be DICOM and is physically in pydicom's wheel."""
    skipped = {".txt", ".py", ".pyc", ".json", ".md"}
    return [path for path in sorted(PYDICOM_DATA.rglob("*")) if path.is_file() and path.suffix not in skipped]


def pydicom_file(name: str) -> bytes:
    """One of pydicom's own test files, by its name."""
    return (PYDICOM_DATA / "test_files" / name).read_bytes()


def item(**values: Any) -> Dataset:
    """An item of a sequence, by keyword."""
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def instance(pixels: np.ndarray | None = None, **values: Any) -> Dataset:
    """A small CT image; ``values`` set attributes by keyword, None takes one away."""
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8) if pixels is None else pixels
    made = item(
        SOPClassUID=CTImageStorage,
        SOPInstanceUID="1.2.826.0.1.3680043.10.1234.1.1.1",
        StudyInstanceUID="1.2.826.0.1.3680043.10.1234.1",
        SeriesInstanceUID="1.2.826.0.1.3680043.10.1234.1.1",
        StudyDate="20150625",
        StudyTime="101500",
        AcquisitionDate="20150626",
        Modality="CT",
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
        AccessionNumber="ACC20150625",
        PatientName="Quillfeather^Morwenna",
        PatientID="0104501236",
        PatientBirthDate="19500401",
        PatientSex="F",
        StudyID="1",
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=pixels.shape[-2] if pixels.ndim < 4 else pixels.shape[1],
        Columns=pixels.shape[-1] if pixels.ndim < 4 else pixels.shape[2],
        BitsAllocated=pixels.dtype.itemsize * 8,
        BitsStored=pixels.dtype.itemsize * 8,
        HighBit=pixels.dtype.itemsize * 8 - 1,
        PixelRepresentation=int(pixels.dtype.kind == "i"),
    )
    made.add_new("PixelData", "OW" if pixels.dtype.itemsize > 1 else "OB", pixels.tobytes())
    for keyword, value in values.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, Sequence(value) if isinstance(value, list) and value and isinstance(value[0], Dataset) else value)
    return made


def dicom_bytes(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """A data set as a file."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.preamble = b"QUILLFEATHER".ljust(128, b"\0")
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def by_gdcm(dataset: Dataset, process: str) -> bytes:
    """A data set as a file in lossless JPEG, which only gdcm writes, and only from file to file.

    Parameters
    ----------
    dataset : with an even number of bytes of pixels, for gdcm takes the one that pads them for a part of the image.
    process : gdcm's name of the transfer syntax, such as ``JPEGLosslessProcess14_1``.
    """
    with TemporaryDirectory() as folder:
        plain, packed = f"{folder}/plain", f"{folder}/packed"
        Path(plain).write_bytes(dicom_bytes(dataset))
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(plain)
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, process)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(packed)
        assert writer.Write()
        written = pydicom.dcmread(packed)
    # It changes more of the header than it has to.
    made = pydicom.dcmread(BytesIO(dicom_bytes(dataset)))
    made["PixelData"] = written["PixelData"]
    return dicom_bytes(made, written.file_meta.TransferSyntaxUID)
