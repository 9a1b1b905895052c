"""First-order statistics of a distribution of values, as the Image Biomarker Standardisation Initiative defines them.

Zwanenburg et al., Radiology 2020; 295: 328-338, and the reference manual (arXiv 1612.07003); its identifiers are in schemas/features.yaml.
Statistics are of the values themselves; entropy and uniformity of values in a fixed number of bins. All are exact: computed from how often
each distinct value occurs.
"""

from dataclasses import dataclass

import numpy as np

from pictures_spark.pixels.frame import rules


@dataclass(frozen=True)
class Distribution:
    """Distinct values in rising order, and how often each occurs."""

    values: np.ndarray
    counts: np.ndarray

    def moment(self, power: int) -> float:
        """Central moment, without a correction for bias."""
        centred = self.values - mean(self)
        return float(np.dot(centred**power, self.counts) / self.counts.sum())

    def percentile(self, q: float) -> float:
        """Percentile, linearly interpolated between the two nearest ranks, as NumPy's default.

        Examples
        --------
        >>> Distribution(np.array([0.0, 10.0]), np.array([1, 1])).percentile(25)
        2.5
        """
        ends = np.cumsum(self.counts)
        rank = (ends[-1] - 1) * q / 100
        lower = int(np.floor(rank))
        below, above = (float(self.values[np.searchsorted(ends, r, side="right")]) for r in (lower, min(lower + 1, ends[-1] - 1)))
        return below + float((above - below) * (rank - lower))

    def shares(self, bins: int) -> np.ndarray:
        """Share of each of so many bins of equal width between the lowest and the highest value (IBSI fixed bin number)."""
        low, high = self.values[0], self.values[-1]
        if low == high:
            return np.ones(1)
        place = np.minimum((bins * ((self.values - low) / (high - low))).astype(np.int64), bins - 1)
        return np.bincount(place, self.counts, bins) / self.counts.sum()

    def share(self, low: float, high: float) -> float:
        """Share of values from ``low``, included, to ``high``, excluded."""
        inside = (self.values >= low) & (self.values < high)
        return float(self.counts[inside].sum() / self.counts.sum())


def mean(d: Distribution) -> float:
    """Arithmetic mean."""
    return float(np.dot(d.values, d.counts) / d.counts.sum())


def variance(d: Distribution) -> float:
    """Variance of the population."""
    return d.moment(2)


def skewness(d: Distribution) -> float:
    """Third standardised moment; 0 where there is one value only."""
    spread = d.moment(2)
    return d.moment(3) / spread**1.5 if len(d.values) > 1 else 0.0


def kurtosis(d: Distribution) -> float:
    """Fourth standardised moment less 3; 0 where there is one value only."""
    spread = d.moment(2)
    return d.moment(4) / spread**2 - 3 if len(d.values) > 1 else 0.0


def lowest(d: Distribution) -> float:
    """The lowest value."""
    return float(d.values[0])


def highest(d: Distribution) -> float:
    """The highest value."""
    return float(d.values[-1])


def p05(d: Distribution) -> float:
    """5th percentile."""
    return d.percentile(5)


def p10(d: Distribution) -> float:
    """10th percentile."""
    return d.percentile(10)


def median(d: Distribution) -> float:
    """50th percentile."""
    return d.percentile(50)


def p90(d: Distribution) -> float:
    """90th percentile."""
    return d.percentile(90)


def p95(d: Distribution) -> float:
    """95th percentile."""
    return d.percentile(95)


def interquartile_range(d: Distribution) -> float:
    """75th less 25th percentile."""
    return d.percentile(75) - d.percentile(25)


def entropy(d: Distribution) -> float:
    """Shannon entropy in bit of the binned values."""
    shares = d.shares(rules()["intensity"]["bins"])
    shares = shares[shares > 0]
    return float(-np.dot(shares, np.log2(shares))) + 0.0


def uniformity(d: Distribution) -> float:
    """Sum of the squared shares of the bins."""
    return float(np.square(d.shares(rules()["intensity"]["bins"])).sum())


def distinct(d: Distribution) -> float:
    """How many different values there are."""
    return float(len(d.values))
