"""CT slices whose truth is known, for features that judge: an abdomen with a liver of a given density."""

import numpy as np


def abdomen(seed, liver, medium=False, size=512, noise=12.0, flipped=False):
    """An axial slice in Hounsfield units, drawn anew for each seed: fat, muscle, liver, spleen, kidneys, bowel, a vertebra, vessels.

    ``medium``: aorta and other vessels hold contrast medium. ``flipped``: columns grow towards the patient's right.
    """
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[:size, :size]
    y, x = y / size, x / size

    def ellipse(cy, cx, ry, rx):
        wobble = rng.uniform(-0.012, 0.012, 2)
        return ((y - cy - wobble[0]) / ry) ** 2 + ((x - cx - wobble[1]) / rx) ** 2 <= 1

    hu = np.full((size, size), -1000.0)
    hu[ellipse(0.5, 0.5, 0.33, 0.42)] = -100
    wall = rng.uniform(0.02, 0.05)
    hu[ellipse(0.5, 0.5, 0.33 - wall, 0.42 - wall)] = 55
    hu[ellipse(0.5, 0.5, 0.33 - wall - 0.02, 0.42 - wall - 0.02)] = -95
    organ = ellipse(0.45, 0.32, rng.uniform(0.17, 0.21), rng.uniform(0.14, 0.17))
    hu[organ] = liver
    hu[ellipse(0.48, 0.76, 0.09, 0.06)] = 48 + (70 if medium else 0)
    for side in (0.33, 0.67):
        hu[ellipse(0.66, side, 0.06, 0.045)] = 32 + (130 if medium else 0)
    for _ in range(5):
        cy, cx = rng.uniform(0.35, 0.5), rng.uniform(0.5, 0.68)
        hu[ellipse(cy, cx, 0.035, 0.035)] = 30
        hu[ellipse(cy, cx, 0.02, 0.02)] = rng.choice([-800, 20])
    vessels = 32 if not medium else rng.uniform(150, 190)
    hu[ellipse(0.6, 0.53, 0.026, 0.026)] = 40 + (130 if medium else 0)
    for _ in range(4):
        hu[ellipse(rng.uniform(0.4, 0.5), rng.uniform(0.26, 0.38), 0.012, 0.012)] = vessels
    hu[ellipse(0.68, 0.5, 0.06, 0.055)] = 1000
    hu[ellipse(0.68, 0.5, 0.05, 0.045)] = 170
    hu = hu + rng.normal(0, noise, hu.shape)
    return np.round(np.clip(hu[:, ::-1] if flipped else hu, -1024, 3071)).astype(np.int16)
