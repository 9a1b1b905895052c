"""Every pixel feature again, slowly: plain Python and NumPy, no OpenCV, no histogram, from the definitions and not from the code."""

import math

import numpy as np

# Thresholds as the definitions have them; not read from the schemas, so that a changed threshold is noticed.
BODY, OPENING, BODY_SHARE = -300, 5, 0.01
SQUARE, DEVIATION, SKIN = 5, 12, 5


def moments(values):
    values = [float(v) for v in values]
    n = len(values)
    mean = math.fsum(values) / n
    second, third, fourth = (math.fsum((v - mean) ** p for v in values) / n for p in (2, 3, 4))
    flat = min(values) == max(values)
    return {
        "intensity_mean": mean,
        "intensity_variance": second,
        "intensity_skewness": 0.0 if flat else third / second**1.5,
        "intensity_kurtosis": 0.0 if flat else fourth / second**2 - 3,
    }


def percentile(values, q):
    ordered = sorted(float(v) for v in values)
    rank = (len(ordered) - 1) * q / 100
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def binned(values, bins):
    low, high = min(values), max(values)
    if low == high:
        return [1.0]
    count = [0] * bins
    for v in values:
        count[min(bins - 1, int(bins * ((v - low) / (high - low))))] += 1
    return [c / len(values) for c in count]


def intensity(values, bins=64):
    values = [float(v) for v in np.asarray(values).ravel()]
    shares = binned(values, bins)
    return {
        **moments(values),
        "intensity_min": min(values),
        "intensity_max": max(values),
        **{f"intensity_p{q:02}": percentile(values, q) for q in (5, 10, 50, 90, 95)},
        "intensity_iqr": percentile(values, 75) - percentile(values, 25),
        "intensity_entropy": -sum(p * math.log2(p) for p in shares if p),
        "intensity_uniformity": sum(p * p for p in shares),
        "unique_values": len(set(values)),
    }


def around(mask, size, beyond):
    """For each pixel, what a square of ``size`` around it holds, as a list of shifted arrays; ``beyond`` is outside the frame."""
    r = size // 2
    padded = np.pad(mask, r, constant_values=beyond)
    h, w = mask.shape
    return [padded[i : i + h, j : j + w] for i in range(size) for j in range(size)]


def eroded(mask, size, beyond=True):
    return np.all(around(mask, size, beyond), axis=0)


def dilated(mask, size):
    return np.any(around(mask, size, False), axis=0)


def crossed(mask):
    """The four neighbours and the pixel itself."""
    padded = np.pad(mask, 1, constant_values=False)
    return [padded[1:-1, 1:-1], padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]


def pieces(mask, diagonal=True):
    """Sets of pixels, by flood fill."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0) and (diagonal or not (dy and dx))]
    found = []
    while left:
        edge = [left.pop()]
        piece = set(edge)
        while edge:
            y, x = edge.pop()
            for dy, dx in steps:
                if (y + dy, x + dx) in left:
                    left.remove((y + dy, x + dx))
                    piece.add((y + dy, x + dx))
                    edge.append((y + dy, x + dx))
        found.append(piece)
    return found


def filled(piece, shape):
    """A piece with its holes: what cannot be reached from outside by steps up, down, left and right."""
    solid = np.zeros((shape[0] + 2, shape[1] + 2), bool)
    for y, x in piece:
        solid[y + 1, x + 1] = True
    outside = next(p for p in pieces(~solid, diagonal=False) if (0, 0) in p)
    out = np.ones_like(solid)
    for y, x in outside:
        out[y, x] = False
    return out[1:-1, 1:-1]


def largest(mask):
    every = [filled(piece, mask.shape) for piece in pieces(mask)]
    return max(every, key=np.count_nonzero) if every else None


def box_mean(values, size):
    """Mean over a square; the frame is mirrored at its edges, the edge itself not repeated."""
    r = size // 2
    padded = np.pad(values.astype(np.float64), r, mode="reflect")
    h, w = values.shape
    return sum(padded[i : i + h, j : j + w] for i in range(size) for j in range(size)) / size**2


def otsu_mask(values, padding=None):
    kept = values if padding is None else values[~padding]
    best, threshold = -1.0, None
    for t in sorted({float(v) for v in kept.ravel()})[:-1]:
        low, high = kept[kept <= t], kept[kept > t]
        between = len(low) * len(high) * (low.mean() - high.mean()) ** 2
        if between > best * (1 + 1e-12):
            best, threshold = between, t
    if threshold is None:
        return None
    mask = values > threshold
    return mask if padding is None else mask & ~padding


def body(hu, padding=None):
    dense = hu > BODY
    if padding is not None:
        dense &= ~padding
    found = largest(dilated(eroded(dense, OPENING), OPENING))
    return None if found is None or found.sum() < BODY_SHARE * hu.size else found


def hounsfield(hu, spacing=None, padding=None):
    """Features of a CT frame; a feature that cannot be had has its reason in place of its value."""
    mask = body(hu, padding)
    names = ["air", "lung", "fat", "soft", "bone", "metal"]
    if mask is None:
        return dict.fromkeys([*(f"{n}_fraction" for n in names), "body_area", "soft_tissue_p99"], "no_body")
    inner = hu[mask]
    ranges = {
        "air": (-np.inf, -950),
        "lung": (-950, -500),
        "fat": (-190, -30),
        "soft": (-30, 150),
        "bone": (226, 2500),
        "metal": (2500, np.inf),
    }
    found = {f"{n}_fraction": sum(low <= v < high for v in inner) / len(inner) for n, (low, high) in ranges.items()}
    rows, columns = np.nonzero(mask)
    found |= {"body_left": columns.min(), "body_top": rows.min(), "body_right": columns.max() + 1, "body_bottom": rows.max() + 1}
    found["body_area"] = "no_spacing" if spacing is None else mask.sum() * spacing[0] * spacing[1] / 100
    outline = mask & ~np.all(crossed(mask), axis=0)
    end = np.zeros_like(mask) if padding is None else np.any(crossed(padding), axis=0)
    end[[0, -1]] = True
    end[:, [0, -1]] = True
    found["body_truncation"] = (outline & end).sum() / outline.sum()
    thin = mask & (hu < -500)
    lung = np.zeros_like(mask)
    for piece in pieces(thin):
        whole = filled(piece, mask.shape)
        if whole.sum() >= 0.005 * mask.sum():
            lung |= whole
    lung &= thin
    found["laa950_fraction"] = (hu[lung] < -950).mean() if lung.sum() >= 0.05 * mask.sum() else "no_lung"
    smooth = box_mean(hu, SQUARE)
    spread = box_mean(smooth**2, SQUARE) - box_mean(smooth, SQUARE) ** 2
    even = (spread < DEVIATION**2) & eroded(mask, 2 * SKIN + 1) & ~bone(hu, mask)
    tissue = smooth[even & (smooth >= 0) & (smooth < 600)]
    if len(tissue) < 0.02 * mask.sum():
        return found | dict.fromkeys(("soft_tissue_p99", "vessel_fraction", "contrast_evidence"), "no_even_tissue")
    found["soft_tissue_p99"] = sorted(tissue)[math.ceil(0.99 * len(tissue)) - 1]
    found["vessel_fraction"] = (tissue >= 130).mean()
    return found


def bone(hu, mask):
    """Dense pieces with a hard core, holes of up to 4 % of the body filled, four pixels around."""
    out = np.zeros_like(mask)
    for piece in pieces(hu > 150):
        if max(hu[p] for p in piece) >= 700:
            for p in piece:
                out[p] = True
    for hole in pieces(~out, diagonal=False):
        inside = all(0 < y < mask.shape[0] - 1 and 0 < x < mask.shape[1] - 1 for y, x in hole)
        # The outline through the bone around a hole: area between pixel centres.
        if inside and outline_area(hole, out) <= 0.04 * mask.sum():
            for p in hole:
                out[p] = True
    return dilated(out, 9)


def outline_area(hole, solid):
    """Area enclosed by the polygon through the centres of the solid pixels that surround a hole."""
    grown = set(hole)
    # Triangles between neighbouring pixel centres: each 2 x 2 cell counts by how many of its corners are hole or its border.
    border = {(y + dy, x + dx) for y, x in hole for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))} - grown
    every = grown | border
    area = 0.0
    for y in range(solid.shape[0] - 1):
        for x in range(solid.shape[1] - 1):
            corners = sum(p in every for p in ((y, x), (y + 1, x), (y, x + 1), (y + 1, x + 1)))
            area += {4: 1.0, 3: 0.5}.get(corners, 0.0)
    return area


def liver(hu, spacing, flipped=False):
    """Median of the largest even piece of soft tissue in the patient's right half, the left of the picture unless it is flipped."""
    mask = body(hu)
    smooth = box_mean(hu, SQUARE)
    spread = box_mean(smooth**2, SQUARE) - box_mean(smooth, SQUARE) ** 2
    soft = (spread < DEVIATION**2) & eroded(mask, 2 * SKIN + 1) & ~bone(hu, mask) & (smooth >= -20) & (smooth < 180)
    columns = np.nonzero(mask.any(axis=0))[0]
    middle = (columns.min() + columns.max() + 1) // 2
    soft[:, slice(0, middle) if flipped else slice(middle, None)] = False
    piece = largest(dilated(eroded(soft, 7), 7))
    if piece is None or piece.sum() * spacing[0] * spacing[1] / 100 < 25:
        return "no_liver"
    return float(np.median(hu[piece]))


def filtered(values, mask3):
    padded = np.pad(values.astype(np.float64), 1, mode="reflect")
    h, w = values.shape
    return sum(mask3[i][j] * padded[i : i + h, j : j + w] for i in range(3) for j in range(3))


def quality(values, padding=None):
    found = {"blank": float(len(set(values[~padding] if padding is not None else values.ravel())) < 2)}
    fore = otsu_mask(values, padding)
    if fore is None:
        return found | dict.fromkeys(("foreground_fraction", "noise_sigma", "sharpness"), "blank")
    found["foreground_fraction"] = fore.mean()
    within = eroded(fore, 3, beyond=False)
    if within.sum() < 64:
        return found | dict.fromkeys(("noise_sigma", "sharpness"), "no_foreground")
    answers = sorted(abs(filtered(values, [[1, -2, 1], [-2, 4, -2], [1, -2, 1]]))[within])
    found["noise_sigma"] = answers[(len(answers) - 1) // 2] / 6 / 0.6744897501960817
    edges = filtered(values, [[0, 1, 0], [1, -4, 1], [0, 1, 0]])[within]
    spread = values[within].astype(np.float64).var()
    found["sharpness"] = (edges**2).mean() / spread if spread else "blank"
    return found


def constant_border(values):
    other = [(y, x) for y, row in enumerate(values.tolist()) for x, v in enumerate(row) if v != values[0, 0]]
    if not other:
        return 1.0
    ys, xs = zip(*other, strict=True)
    return 1 - (max(ys) - min(ys) + 1) * (max(xs) - min(xs) + 1) / values.size


def phash(values, inverted=False):
    """By overlapping areas and an explicit cosine transform."""

    def weights(size):
        out = np.zeros((32, size))
        for i in range(32):
            start, end = i * size / 32, (i + 1) * size / 32
            for j in range(size):
                out[i, j] = max(0.0, min(end, j + 1) - max(start, j))
        return out * 32 / size

    small = weights(values.shape[0]) @ values.astype(np.float64) @ weights(values.shape[1]).T
    small = -small if inverted else small
    wave = np.array([[math.cos(math.pi * (2 * n + 1) * k / 64) for n in range(32)] for k in range(8)])
    scale = np.array([math.sqrt(1 / 32)] + [math.sqrt(2 / 32)] * 7)
    coefficients = (wave * scale[:, None]) @ (small - small.mean()) @ (wave * scale[:, None]).T
    flat = coefficients.ravel()
    middle = sorted(flat[1:])[31]
    return f"{sum(1 << (63 - n) for n, c in enumerate(flat) if c > middle):016x}"
