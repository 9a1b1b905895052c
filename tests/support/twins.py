"""Series made twice: as classic images, and as one enhanced image whose functional groups (PS3.3 C.7.6.16) say the same."""

import json
from typing import Any

from instances import dicom_bytes, item
from pydicom import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, EnhancedMRImageStorage, MRImageStorage

from pictures_spark.dicom.scan import scan

AXIAL = [1, 0, 0, 0, 1, 0]
# Study of each series; the classic one is followed by its twin.
CT, CT_TWIN, MR, MR_TWIN = "61", "62", "63", "64"
# Attributes that only one of the twins has: how an enhanced image says what kind it is.
ONLY_ONE = {"ImageType", "NumberOfFrames", "EchoPulseSequence", "InversionRecovery", "ScanningSequence", "ContentQualification"}


def twins() -> dict[str, list[Dataset]]:
    """Images by study: a CT with contrast and a diffusion MR of two b-values, each classic and enhanced."""
    ct = [_ct(z) for z in (-10.0, -7.5, -5.0, -2.5)]
    mr = [_mr(z, b) for z in (0.0, 3.3, 6.6) for b in (0.0, 1000.0)]
    return {
        CT: [_numbered(CT, n, image) for n, image in enumerate(ct, 1)],
        CT_TWIN: [_numbered(CT_TWIN, 1, _enhanced_ct(ct))],
        MR: [_numbered(MR, n, image) for n, image in enumerate(mr, 1)],
        MR_TWIN: [_numbered(MR_TWIN, 1, _enhanced_mr(mr))],
    }


def header_rows(images: list[Dataset], start: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of header_instance and the row of header_series, as the catalogue makes them; ``start`` has columns of every row."""
    contents = [dicom_bytes(image) for image in images]
    records = [scan(content) for content in contents]
    common = {
        tag: element for tag, element in records[0].elements.items() if all(record.elements.get(tag) == element for record in records)
    }
    series = {name: records[0].columns[name] for name in ("study_uid", "series_uid", "modality")}
    identity = f"template-{series['series_uid']}"
    rows = [
        {
            **start,
            **record.columns,
            "content_sha256": f"sha-{record.columns['sop_uid']}",
            "object_id": f"object-{record.columns['sop_uid']}",
            "template_id": identity,
            "differences": json.dumps({tag: element for tag, element in record.elements.items() if tag not in common}),
            "conflict": False,
            "has_pixels": record.has_pixels,
        }
        for record in records
    ]
    return rows, {**series, "template_id": identity, "elements": json.dumps(common)}


def _numbered(study: str, number: int, image: Dataset) -> Dataset:
    uid = f"1.2.826.0.1.3680043.{study}"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID = uid, f"{uid}.1", f"{uid}.1.{number}"
    image.InstanceNumber = number
    return image


def _common(**values: Any) -> Dataset:
    """What both twins have at their top level."""
    made = item(
        StudyDate="20150301",
        StudyTime="101500",
        AcquisitionDateTime="20150301102000",
        PatientID="",
        PatientSex="F",
        Manufacturer="SIEMENS",
        InstitutionName="Nether Infirmary",
        StationName="CT1",
        BodyPartExamined="ABDOMEN",
        PatientPosition="HFS",
        Rows=2,
        Columns=2,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        **values,
    )
    return made


def _pixels(image: Dataset, frames: int) -> Dataset:
    image.add_new("PixelData", "OB", bytes(4 * frames))
    return image


def _ct(z: float) -> Dataset:
    made = _common(
        SOPClassUID=CTImageStorage, Modality="CT", ManufacturerModelName="SOMATOM Definition AS+", SeriesDescription="Abdomen portal"
    )
    made.update(
        item(
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
            ImagePositionPatient=[-100, -100, z],
            ImageOrientationPatient=AXIAL,
            PixelSpacing=[0.7, 0.7],
            SliceThickness=2.5,
            SpacingBetweenSlices=2.5,
            # One slice was made with less current.
            XRayTubeCurrent=150 if z == -5.0 else 200,
            KVP=120,
            ExposureTime=500,
            Exposure=100,
            GantryDetectorTilt=0,
            ReconstructionDiameter=400,
            ConvolutionKernel="B31f",
            SpiralPitchFactor=0.9,
            CTDIvol=7.25,
            RescaleSlope=1,
            RescaleIntercept=-1024,
            WindowCenter=40,
            WindowWidth=400,
            ContrastBolusAgent="Iohexol 300",
            ContrastBolusRoute="IV",
        )
    )
    return _pixels(made, 1)


def _enhanced_ct(classic: list[Dataset]) -> Dataset:
    first = classic[0]
    made = _common(
        SOPClassUID=EnhancedCTImageStorage,
        Modality="CT",
        ManufacturerModelName="SOMATOM Definition AS+",
        SeriesDescription="Abdomen portal",
    )
    made.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    made.NumberOfFrames = len(classic)
    made.ContrastBolusAgentSequence = [
        item(
            CodeValue="412372002",
            CodingSchemeDesignator="SCT",
            CodeMeaning="Iohexol",
            ContrastBolusAdministrationRouteSequence=[_code("Intravenous route")],
        )
    ]
    made.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[item(SliceThickness=2.5, SpacingBetweenSlices=2.5, PixelSpacing=[0.7, 0.7])],
            PlaneOrientationSequence=[item(ImageOrientationPatient=AXIAL)],
            CTImageFrameTypeSequence=[item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])],
            CTXRayDetailsSequence=[item(KVP=120)],
            CTAcquisitionDetailsSequence=[item(GantryDetectorTilt=0)],
            CTTableDynamicsSequence=[item(SpiralPitchFactor=0.9)],
            CTReconstructionSequence=[item(ReconstructionDiameter=400, ConvolutionKernel="B31f")],
            PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=-1024)],
            FrameVOILUTSequence=[item(WindowCenter=40, WindowWidth=400)],
            ContrastBolusUsageSequence=[item(ContrastBolusAgentNumber=1, ContrastBolusAgentAdministered="YES")],
        )
    ]
    made.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=image.ImagePositionPatient)],
            CTExposureSequence=[
                item(
                    ExposureTimeInms=float(first.ExposureTime),
                    XRayTubeCurrentInmA=float(image.XRayTubeCurrent),
                    ExposureInmAs=float(first.Exposure),
                    CTDIvol=first.CTDIvol,
                )
            ],
        )
        for image in classic
    ]
    return _pixels(made, len(classic))


def _mr(z: float, b: float) -> Dataset:
    made = _common(SOPClassUID=MRImageStorage, Modality="MR", ManufacturerModelName="Avanto", MagneticFieldStrength=1.5)
    made.update(
        item(
            ImageType=["ORIGINAL", "PRIMARY", "DIFFUSION"],
            ImagePositionPatient=[-100, -100, z],
            ImageOrientationPatient=AXIAL,
            PixelSpacing=[1.5, 1.5],
            SliceThickness=3,
            SpacingBetweenSlices=3.3,
            ScanningSequence=["SE", "IR"],
            RepetitionTime=4000,
            EchoTime=81.5,
            InversionTime=180,
            FlipAngle=90,
            EchoTrainLength=1,
            NumberOfAverages=2,
            PixelBandwidth=1502,
            DiffusionBValue=b,
            ContrastBolusAgent="NONE",
        )
    )
    return _pixels(made, 1)


def _enhanced_mr(classic: list[Dataset]) -> Dataset:
    made = _common(SOPClassUID=EnhancedMRImageStorage, Modality="MR", ManufacturerModelName="Avanto", MagneticFieldStrength=1.5)
    made.update(
        item(
            ImageType=["MIXED", "PRIMARY", "DIFFUSION", "NONE"],
            NumberOfFrames=len(classic),
            EchoPulseSequence="SPIN",
            InversionRecovery="YES",
            ContentQualification="PRODUCT",
        )
    )
    made.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[item(SliceThickness=3, SpacingBetweenSlices=3.3, PixelSpacing=[1.5, 1.5])],
            PlaneOrientationSequence=[item(ImageOrientationPatient=AXIAL)],
            MRTimingAndRelatedParametersSequence=[item(RepetitionTime=4000, FlipAngle=90, EchoTrainLength=1)],
            MREchoSequence=[item(EffectiveEchoTime=81.5)],
            MRModifierSequence=[item(InversionRecovery="YES", InversionTimes=[180.0])],
            MRAveragesSequence=[item(NumberOfAverages=2)],
            MRImagingModifierSequence=[item(PixelBandwidth=1502)],
            ContrastBolusUsageSequence=[item(ContrastBolusAgentNumber=1, ContrastBolusAgentAdministered="NO")],
        )
    ]
    made.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=image.ImagePositionPatient)],
            MRImageFrameTypeSequence=[item(FrameType=["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"])],
            MRDiffusionSequence=[item(DiffusionBValue=image.DiffusionBValue)],
        )
        for image in classic
    ]
    return _pixels(made, len(classic))


def _code(meaning: str) -> Dataset:
    return item(CodeValue="47625008", CodingSchemeDesignator="SCT", CodeMeaning=meaning)
