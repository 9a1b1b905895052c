"""DICOM files of planned images: realistic headers, identifiers in every corner, several transfer syntaxes.

Enters: a planned study, series and the image's place in it (scans.py). Leaves: the bytes of a DICOM file. Pure; driver.
No value comes from the clock or from pydicom's own defaults, so that the same plan gives the same bytes.
"""

import io
from random import Random

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.pixels import compress
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    RLELossless,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from pictures_spark.synthetic import pictures
from pictures_spark.synthetic.scans import Series, Study

SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg2000": JPEG2000Lossless,
}
CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "CR": ComputedRadiographyImageStorage, "US": UltrasoundImageStorage}
KINDS = {"enhanced": EnhancedCTImageStorage, "cine": UltrasoundMultiFrameImageStorage}
# Rows and columns; a burned-in line needs the larger one.
SIZES = {"CT": (128, 128), "MR": (128, 128), "CR": (352, 320), "US": (240, 320)}
SIZE_WITH_TEXT = (256, 256)
COSINES = {"axial": ["1", "0", "0", "0", "1", "0"], "coronal": ["1", "0", "0", "0", "0", "-1"], "sagittal": ["0", "1", "0", "0", "0", "-1"]}


def dicom_file(study: Study, series: Series, number: int, retold: bool = False) -> bytes:
    """The file of image ``number`` (from 1).

    ``retold``: the same image as another system sent it, with one description and one pixel changed.
    """
    rng = Random(f"{study.seed}/{series.number}")
    dataset = Dataset()
    _patient(dataset, study)
    _study(dataset, study, rng)
    _series(dataset, study, series, rng)
    _image(dataset, study, series, number)
    _hidden(dataset, study)
    stored = _pixels(dataset, study, series, number)
    if retold:
        dataset.SeriesDescription = f"{dataset.SeriesDescription} resent"
        stored.flat[0] = stored.flat[1]
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated == 16 else "OB"
    for keyword, text in series.header.items():
        _as_it_stands(dataset, keyword, text)
    return _written(dataset, SYNTAXES[series.syntax])


def _as_it_stands(dataset: Dataset, keyword: str, text: str | None) -> None:
    """Write text as the attribute's value whatever it is; None takes the attribute out."""
    tag = Tag(keyword)
    if text is None:
        if tag in dataset:
            del dataset[tag]
        return
    value = text.encode() + b" " * (len(text) % 2)
    dataset[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)


def _written(dataset: Dataset, syntax: UID) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.ImplementationClassUID = UID("2.25.305828488182831875890203105390285383139")
    meta.ImplementationVersionName = "SYNTHETIC"
    packed = syntax in (RLELossless, JPEG2000Lossless)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if packed else syntax
    dataset.file_meta = meta
    if packed:
        compress(dataset, syntax, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True, enforce_file_format=True)
    return buffer.getvalue()


def _patient(dataset: Dataset, study: Study) -> None:
    person = study.person
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName = person.header_name
    dataset.PatientID = study.patient_id or ""
    if study.patient_id == study.hospital_number:
        dataset.IssuerOfPatientID = study.hospital.institution
    dataset.PatientBirthDate = f"{person.birth:%Y%m%d}"
    dataset.PatientSex = person.sex
    if study.day >= person.birth:
        years = study.day.year - person.birth.year - ((study.day.month, study.day.day) < (person.birth.month, person.birth.day))
        dataset.PatientAge = f"{years:03d}Y"
    dataset.OtherPatientIDs = [study.hospital_number, person.chi]
    dataset.PatientAddress = f"{person.residences[-1].postcode}"
    dataset.PatientComments = f"{person.forename} {person.surname} lives alone"


def _study(dataset: Dataset, study: Study, rng: Random) -> None:
    physicians = study.hospital.physicians
    dataset.StudyInstanceUID = study.uid
    dataset.StudyID = study.accession[-6:]
    dataset.AccessionNumber = study.accession
    dataset.StudyDate = f"{study.day:%Y%m%d}"
    dataset.StudyTime = f"{rng.randrange(8, 18):02d}{rng.randrange(60):02d}{rng.randrange(60):02d}"
    dataset.ReferringPhysicianName = physicians[0]
    dataset.NameOfPhysiciansReadingStudy = physicians[1]
    dataset.RequestingPhysician = physicians[0]
    dataset.AdditionalPatientHistory = f"Fall at home. {study.person.surname} known to Dr {physicians[0].split('^')[0]}"
    request = Dataset()
    request.AccessionNumber = study.accession
    request.RequestedProcedureID = study.accession
    request.ScheduledProcedureStepID = f"{study.accession}.1"
    request.RequestedProcedureDescription = f"For {study.person.forename} {study.person.surname}"
    request.ReferencedStudySequence = [_reference("1.2.840.10008.3.1.2.3.1", study.uid)]
    dataset.RequestAttributesSequence = [request]
    other = Dataset()
    other.PatientID = study.person.chi
    other.TypeOfPatientID = "TEXT"
    dataset.OtherPatientIDsSequence = [other]


def _reference(sop_class: str, uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = uid
    return item


def _series(dataset: Dataset, study: Study, series: Series, rng: Random) -> None:
    protocol, hospital = series.protocol, study.hospital
    modality = protocol["modality"]
    dataset.Modality = modality
    dataset.SeriesInstanceUID = series.uid
    dataset.SeriesNumber = series.number
    dataset.SeriesDate = dataset.StudyDate
    dataset.SeriesTime = f"{int(dataset.StudyTime):06d}.{rng.randrange(1000):03d}"
    dataset.StudyDescription = protocol["study"]
    dataset.SeriesDescription = protocol["series"]
    dataset.ProtocolName = protocol["protocol"]
    dataset.BodyPartExamined = protocol["body"]
    dataset.Manufacturer, dataset.ManufacturerModelName = series.device
    dataset.InstitutionName = hospital.institution
    dataset.InstitutionAddress = hospital.address
    dataset.InstitutionalDepartmentName = "Radiology"
    dataset.StationName = hospital.stations[modality]
    dataset.DeviceSerialNumber = hospital.serials[modality]
    dataset.OperatorsName = hospital.physicians[2]
    dataset.PerformingPhysicianName = hospital.physicians[1]
    dataset.PerformedProcedureStepStartDate = dataset.StudyDate
    dataset.PerformedProcedureStepID = study.accession
    dataset.SoftwareVersions = "synthetic 1"
    for keyword, name in (
        ("ContrastBolusAgent", "agent"),
        ("ContrastBolusRoute", "route"),
        ("Laterality", "laterality"),
        ("ViewPosition", "view"),
    ):
        if name in protocol:
            setattr(dataset, keyword, protocol[name])
    if modality == "CT":
        dataset.KVP = rng.choice(["100", "120"])
        dataset.GantryDetectorTilt = "0"
        dataset.ConvolutionKernel = rng.choice(["H31s", "B31f"])
        dataset.ExposureTime = "500"
    elif modality == "MR":
        dataset.ScanningSequence = protocol["sequence"]
        dataset.SequenceVariant = "SK"
        dataset.ScanOptions = ""
        dataset.MRAcquisitionType = "2D"
        dataset.EchoTrainLength = 1
        dataset.MagneticFieldStrength = protocol["field"]
        dataset.RepetitionTime = protocol["tr"]
        dataset.EchoTime = protocol["te"]
        if "ti" in protocol:
            dataset.InversionTime = protocol["ti"]
    elif modality == "CR":
        dataset.PresentationIntentType = "FOR PRESENTATION"
        dataset.PatientOrientation = ["L", "F"]
        dataset.BurnedInAnnotation = "NO"  # What headers claim is often untrue.
        dataset.PlateID = hospital.serials[modality]
    elif series.burned:
        dataset.BurnedInAnnotation = "YES"


def _image(dataset: Dataset, study: Study, series: Series, number: int) -> None:
    protocol = series.protocol
    dataset.SOPClassUID = KINDS.get(protocol.get("kind", ""), CLASSES[protocol["modality"]])
    dataset.SOPInstanceUID = series.sop_uids[number - 1]
    dataset.InstanceNumber = number
    dataset.ImageType = protocol["type"]
    day = f"{study.day:%Y%m%d}"
    hours, rest = divmod(int(dataset.StudyTime), 10000)
    seconds = hours * 3600 + rest // 100 * 60 + rest % 100 + 90 + 2 * number
    clock = f"{seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}"
    dataset.AcquisitionDate, dataset.AcquisitionTime = day, f"{clock}.25"
    dataset.ContentDate, dataset.ContentTime = day, f"{clock}.75"
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = day, clock
    dataset.AcquisitionNumber = 1
    dataset.ImageComments = f"Checked with {study.person.forename} {study.person.surname}"
    first = study.series[0]
    dataset.ReferencedImageSequence = [_reference(CLASSES[first.protocol["modality"]], first.sop_uids[0])]
    if protocol["type"][0] == "DERIVED":
        dataset.SourceImageSequence = [_reference(dataset.SOPClassUID, f"{study.uid}.90.{number}")]
        dataset.DerivationDescription = f"Reformat of {study.accession}"
    if protocol.get("kind") == "enhanced":
        _functional_groups(dataset, study, series)
    elif protocol["modality"] in ("CT", "MR"):
        dataset.PatientPosition = "HFS"
        dataset.FrameOfReferenceUID = f"{study.uid}.80"
        dataset.PositionReferenceIndicator = ""
        dataset.SliceThickness = protocol["thickness"]
        dataset.PixelSpacing = _spacing(series)
        dataset.ImageOrientationPatient = COSINES[protocol.get("plane", "axial")]
        dataset.ImagePositionPatient = _position(series, number)
        if protocol["modality"] == "MR":
            dataset.SpacingBetweenSlices = f"{float(protocol['thickness']) + 0.5:g}"
    elif protocol.get("kind") == "cine":
        dataset.NumberOfFrames = series.frames
        dataset.FrameTime = "40"
        dataset.CineRate = "25"
        dataset.FrameIncrementPointer = Tag("FrameTime")


def _spacing(series: Series) -> list[str]:
    spacing = f"{240 / _size(series)[0]:.4f}"
    return [spacing, spacing]


def _position(series: Series, number: int) -> list[str]:
    place = f"{-60 + (number - 1) * float(series.protocol['thickness']):.2f}"
    return {"axial": ["-120", "-120", place], "coronal": ["-120", place, "120"], "sagittal": [place, "-120", "120"]}[
        series.protocol.get("plane", "axial")
    ]


def _functional_groups(dataset: Dataset, study: Study, series: Series) -> None:
    """Thickness, orientation and position of an enhanced image are in its functional groups alone (PS3.3 C.7.6.16)."""
    dataset.NumberOfFrames = series.frames
    dataset.FrameOfReferenceUID = f"{study.uid}.80"
    dataset.PatientPosition = "HFS"
    dataset.AcquisitionDateTime = f"{study.day:%Y%m%d}{dataset.AcquisitionTime}"
    dataset.ContentQualification = "PRODUCT"
    dataset.PixelPresentation, dataset.VolumetricProperties = "MONOCHROME", "VOLUME"
    dataset.VolumeBasedCalculationTechnique = "NONE"
    dataset.LossyImageCompression, dataset.PresentationLUTShape = "00", "IDENTITY"
    dataset.AcquisitionContextSequence = []
    organisation, stack, place = Dataset(), Dataset(), Dataset()
    organisation.DimensionOrganizationUID = f"{study.uid}.70"
    for index, pointer in ((stack, "StackID"), (place, "InStackPositionNumber")):
        index.DimensionOrganizationUID = organisation.DimensionOrganizationUID
        index.DimensionIndexPointer, index.FunctionalGroupPointer = Tag(pointer), Tag("FrameContentSequence")
    dataset.DimensionOrganizationSequence = [organisation]
    dataset.DimensionIndexSequence = [stack, place]
    shared, measures, orientation, transformation = Dataset(), Dataset(), Dataset(), Dataset()
    measures.SliceThickness = series.protocol["thickness"]
    measures.PixelSpacing = _spacing(series)
    orientation.ImageOrientationPatient = COSINES["axial"]
    transformation.RescaleIntercept, transformation.RescaleSlope, transformation.RescaleType = "0", "1", "HU"
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelValueTransformationSequence = [transformation]
    shared.ReferencedImageSequence = [_reference(CTImageStorage, f"{study.uid}.90.1")]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for number in range(1, series.frames + 1):
        frame, content, position = Dataset(), Dataset(), Dataset()
        content.FrameAcquisitionDateTime = dataset.AcquisitionDateTime
        content.DimensionIndexValues = [1, number]
        content.StackID, content.InStackPositionNumber = "1", number
        position.ImagePositionPatient = _position(series, number)
        frame.FrameContentSequence = [content]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames


def _hidden(dataset: Dataset, study: Study) -> None:
    """Identifiers where scanners hide them: private blocks, as text, as bytes and in nested sequences."""
    person = study.person
    block = dataset.private_block(0x0009, "SYNTHETIC PATIENT 01", create=True)
    block.add_new(0x01, "PN", person.header_name)
    block.add_new(0x02, "LO", f"{person.surname} {person.chi}")
    block.add_new(0x03, "DA", f"{person.birth:%Y%m%d}")
    block.add_new(0x04, "UI", study.uid)
    inner = Dataset()
    inner.PatientID = person.chi
    inner.PatientBirthDate = f"{person.birth:%Y%m%d}"
    block.add_new(0x05, "SQ", [inner])
    raw = f"<Patient name='{person.forename} {person.surname}' id='{person.chi}' accession='{study.accession}'/>"
    dataset.private_block(0x0029, "SYNTHETIC HEADER 01", create=True).add_new(0x10, "OB", raw.encode() + b" " * (len(raw) % 2))


def _size(series: Series) -> tuple[int, int]:
    modality = series.protocol["modality"]
    return SIZE_WITH_TEXT if series.burned and modality in ("CT", "MR") else SIZES[modality]


def _pixels(dataset: Dataset, study: Study, series: Series, number: int) -> np.ndarray:
    """Stored values, and the attributes that say how to read them."""
    protocol, shape = series.protocol, _size(series)
    modality = protocol["modality"]
    frames = []
    for frame in range(1, series.frames + 1):
        part = min(1000, (number + frame - 2) * 70)
        picture = pictures.PICTURES[protocol["picture"]](f"{study.seed}/{series.number}/{number}/{frame}", shape, part)
        if series.burned:
            bright, dark = {"CT": (1500, -1000), "MR": (1400, 0)}.get(modality, (250, 5))
            # Bright letters on a dark corner, or dark letters on a banner: radiographs of one study in two have the latter.
            picture = pictures.burn(picture, series.burned, bright, dark, banner=modality == "CR" and study.person.index % 2 == 0)
        frames.append(picture)
    values = np.stack(frames) if series.frames > 1 else frames[0]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.PixelRepresentation = 16, 12, 0
    if modality == "CT":
        signed = protocol.get("signed", False)
        dataset.PixelRepresentation = int(signed)
        dataset.BitsStored = 16 if signed else 12
        if protocol.get("kind") != "enhanced":
            dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0" if signed else "-1024", "1", "HU"
            dataset.WindowCenter, dataset.WindowWidth = "40", "400"
        stored = np.clip(values, -1024, 3071).astype("<i2") if signed else np.clip(values + 1024, 0, 4095).astype("<u2")
    elif modality == "MR":
        dataset.WindowCenter, dataset.WindowWidth = "500", "1000"
        stored = np.clip(values, 0, 4095).astype("<u2")
    elif modality == "CR":
        if protocol.get("inverted"):
            dataset.PhotometricInterpretation = "MONOCHROME1"
            values = 255 - values
        stored = (np.clip(values, 0, 255) * 16).astype("<u2")
        dataset.ImagerPixelSpacing = ["0.2", "0.2"]
    else:
        dataset.BitsAllocated = dataset.BitsStored = 8
        stored = np.clip(values, 0, 255).astype("u1")
        if protocol.get("colour"):
            dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
            stored = np.stack([stored, stored, stored], axis=-1)
            rows, columns = shape
            flow = stored[rows // 2 : rows // 2 + 24, columns // 2 - 20 : columns // 2 + 20]
            flow[..., 1:] //= 3
    dataset.HighBit = dataset.BitsStored - 1
    return stored
