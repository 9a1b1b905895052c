"""What features judge crudely, on planted slices of known truth: how wrong they are, and whether enhanced and plain are told apart."""

import numpy as np
import pytest
from instances import dicom_bytes, instance
from planted_ct import abdomen

from pictures_spark.pixels.decode import decode
from pictures_spark.pixels.features import features
from pictures_spark.synthetic.pictures import PICTURES

CT = {
    "RescaleSlope": "1",
    "RescaleIntercept": "0",
    "PixelSpacing": ["0.75", "0.75"],
    "SliceThickness": "5",
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    "BodyPartExamined": "ABDOMEN",
}
FLIPPED = {**CT, "ImageOrientationPatient": ["-1", "0", "0", "0", "1", "0"]}


def value(pixels, name, **header):
    (found,) = features(decode(dicom_bytes(instance(pixels, **{**CT, **header})), 10**7), names=[name])
    return found.reason if found.value is None else found.value


# (density, noise): from severe fatty change to a portal phase, from a thick smooth slice to a thin one.
LIVERS = [(truth, noise) for truth in (5, 20, 31, 45, 56, 70, 104) for noise in (5, 15, 30)]


def test_the_error_of_the_liver_on_planted_abdomens():
    errors = []
    for seed, (truth, noise) in enumerate(LIVERS):
        flipped = seed % 2 == 1
        found = value(abdomen(seed, truth, truth > 90, noise=noise, flipped=flipped), "liver_mean@1", **(FLIPPED if flipped else {}))
        errors.append(abs(found - truth))
    # docs/pixel-features.md says these numbers, and what they do not show.
    assert np.median(errors) <= 1
    assert max(errors) <= 4


def test_what_is_on_the_wrong_side_is_no_liver():
    # The spleen is too small to be taken for it.
    assert value(abdomen(1, 20), "liver_mean@1", ImageOrientationPatient=FLIPPED["ImageOrientationPatient"]) == "no_liver"


@pytest.mark.parametrize("size", [256, 512])
@pytest.mark.parametrize("seed", range(3))
def test_medium_in_an_abdomen_is_told(seed, size):
    header = {"PixelSpacing": [str(384 / size)] * 2}
    assert value(abdomen(seed, 56, size=size), "contrast_evidence@1", **header) == 0
    assert value(abdomen(seed, 104, medium=True, size=size), "contrast_evidence@1", **header) == 2


@pytest.mark.parametrize("size", [128, 512])
@pytest.mark.parametrize("region", ["ct_head", "ct_chest"])
def test_the_generators_enhanced_pictures_are_told_from_the_plain_ones(region, size):
    """The pictures of the synthetic archive: what its headers say of contrast medium is so in its pixels."""
    for number in range(4):
        plain, enhanced = (
            np.clip(PICTURES[picture](f"{number}", (size, size), 200 * number), -1024, 3071).astype(np.int16)
            for picture in (region, f"{region}_enhanced")
        )
        assert value(plain, "contrast_evidence@1") == 0
        assert value(enhanced, "contrast_evidence@1") == 2
        assert value(enhanced, "soft_tissue_p99@1") - value(plain, "soft_tissue_p99@1") > 100
        # Coded wrongly: the header says what the pixels do not.
        assert value(plain, "contrast_evidence@1", ContrastBolusAgent="Iohexol 300") == 1
        assert value(enhanced, "contrast_evidence@1", ContrastBolusAgent="NONE") == 2
