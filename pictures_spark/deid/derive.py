"""What publish tells about an image from its header: ages, planes, regions, contrast, in words and numbers that name nobody.

Pure functions over header values; each gives a value of a closed list or a number, never a text it has read. The rules are data in
schemas/derive/. They run on executors, in the passes of `tables_images`; `age_years` is the one rule that is a Spark expression as well,
because events are never taken through Python.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from pictures_spark.resources import load_schema
from pictures_spark.schema import vocabulary

if TYPE_CHECKING:
    from pyspark.sql import Column


def completed_years(born: date | None, on: date | None) -> int | None:
    """Age in completed years; who is born on 29 February has the birthday on 1 March in common years.

    None where a date is missing or ``on`` lies before ``born``.

    Examples
    --------
    >>> completed_years(date(2000, 2, 29), date(2001, 2, 28)), completed_years(date(2000, 2, 29), date(2001, 3, 1))
    (0, 1)
    """
    if born is None or on is None or on < born:
        return None
    return on.year - born.year - ((on.month, on.day) < (born.month, born.day))


def age_years(born: "Column", on: "Column") -> "Column":
    """`completed_years` as a Spark expression of two date columns; the tests hold the two against each other."""
    from pyspark.sql import functions as F

    birthday_to_come = F.month(on) * 100 + F.dayofmonth(on) < F.month(born) * 100 + F.dayofmonth(born)
    return F.when(on >= born, F.year(on) - F.year(born) - birthday_to_come.cast("int")).cast("long")


def scan_moment(moments: dict[str, tuple[date | None, str | None]]) -> tuple[int, date, str | None] | None:
    """An image's best statement of when it was made: (rank, date, time of day); the smallest of a series is the series' own.

    The rank is the place of the attribute in ``scan_date.order`` of schemas/derive/series.yaml. Dates before the earliest valid one are
    defaults of a device and take no part. None where no date is valid.

    Parameters
    ----------
    moments : DICOM keyword of each date -> (date, time of day).
    """
    rule = load_schema("derive/series.yaml")["scan_date"]
    earliest = date.fromisoformat(rule["earliest"])
    for rank, keyword in enumerate(rule["order"]):
        day, time = moments.get(keyword, (None, None))
        if day is not None and day >= earliest:
            return rank, day, time
    return None


def orientation(cosines: Sequence[float | None] | None) -> str | None:
    """Plane of an image from its ImageOrientationPatient; None where that is not two orthogonal unit vectors.

    AXIAL, CORONAL or SAGITTAL where the slice normal is within the tolerance of the body axis, else OBLIQUE (PS3.3 C.7.6.2.1.1: x to the
    patient's left, y to the back, z to the head).

    Examples
    --------
    >>> orientation([1, 0, 0, 0, 1, 0]), orientation([1, 0, 0, 0, 0, -1]), orientation([0, 0, 0, 0, 0, 0])
    ('AXIAL', 'CORONAL', None)
    """
    rule = load_schema("derive/series.yaml")["orientation"]
    if cosines is None or len(cosines) != 6 or any(c is None or not math.isfinite(c) for c in cosines):
        return None
    row, column = [float(c or 0) for c in cosines[:3]], [float(c or 0) for c in cosines[3:]]
    off = rule["cosine_tolerance"]
    if abs(math.hypot(*row) - 1) > off or abs(math.hypot(*column) - 1) > off:
        return None
    if abs(sum(a * b for a, b in zip(row, column, strict=True))) > off:
        return None
    normal = {
        "SAGITTAL": row[1] * column[2] - row[2] * column[1],
        "CORONAL": row[2] * column[0] - row[0] * column[2],
        "AXIAL": row[0] * column[1] - row[1] * column[0],
    }
    near = math.cos(math.radians(rule["tolerance_degrees"])) * math.hypot(*normal.values())
    return next((plane for plane, part in normal.items() if abs(part) >= near), "OBLIQUE")


@cache
def sop_class_family(uid: str | None) -> str | None:
    """Family of a SOP class; ``other`` for a class the table does not know, None where there is no UID."""
    if uid is None:
        return None
    parts = uid.strip().split(".")
    families = _families()
    return next((families[start] for n in range(len(parts), 0, -1) if (start := ".".join(parts[:n])) in families), "other")


@cache
def _families() -> dict[str, str]:
    rule = load_schema("derive/sop_class_family.yaml")
    return {f"{rule['root']}.{start}": family for family, starts in rule["families"].items() for start in starts}


def image_kind(image_type: Sequence[str | None] | None, sop_class_uid: str | None) -> str | None:
    """SCREEN (secondary capture), LOCALIZER (ImageType from value 3), else ORIGINAL or DERIVED (value 1); None for what is no image.

    Of an enhanced image, whose ImageType may say MIXED, each frame's FrameType is asked.
    """
    rule = load_schema("derive/series.yaml")["image_kind"]
    if sop_class_family(sop_class_uid) not in rule["families"]:
        return None
    if f"{(sop_class_uid or '').strip()}.".startswith(f"{rule['screen_class']}."):
        return "SCREEN"
    values = [(value or "").strip().upper() for value in image_type or ()]
    if rule["localizer"] in values[2:]:
        return str(rule["localizer"])
    return values[0] if values and values[0] in ("ORIGINAL", "DERIVED") else None


@cache
def manufacturer_norm(manufacturer: str | None) -> str | None:
    """Manufacturer by the pattern list; OTHER for a name that no pattern knows, None where there is none."""
    name = (manufacturer or "").strip().upper()
    if not name:
        return None
    rules = load_schema("derive/series.yaml")["manufacturer"]
    return next((rule["is"] for rule in rules if re.search(rule["pattern"], name)), "OTHER")


@cache
def model_norm(manufacturer: str | None, model: str | None) -> str | None:
    """Device family from `manufacturer_norm` and ManufacturerModelName; OTHER for a name that no pattern knows, None where there is none.

    Examples
    --------
    >>> model_norm("SIEMENS", "SOMATOM Definition AS"), model_norm("GE", "SOMATOM"), model_norm("GE", " ")
    ('SOMATOM_DEFINITION_AS', 'OTHER', None)
    """
    if not (model or "").strip():
        return None
    row = _model(manufacturer, model)
    return "OTHER" if row is None else str(row["is"])


@cache
def model_is_portable(manufacturer: str | None, model: str | None) -> bool:
    """Whether a device is one that is wheeled to the patient."""
    return bool((_model(manufacturer, model) or {}).get("portable"))


def _model(manufacturer: str | None, model: str | None) -> dict[str, Any] | None:
    name = (model or "").strip().upper()
    rules = load_schema("derive/models.yaml")["models"].get(manufacturer, ())
    return next((rule for rule in rules if re.search(rule["pattern"], name)), None)


def field_tesla(strength: float | None) -> float | None:
    """Field strength in tesla; header values above the limit are gauss. None stays None."""
    rule = load_schema("derive/series.yaml")["field_strength"]
    if strength is not None and strength > rule["gauss_above"]:
        return float(strength) / float(rule["gauss_per_tesla"])
    return strength


def header_code(rule: str, value: str | None) -> str | None:
    """A header's code in our words by ``codes`` of schemas/derive/series.yaml; None for a code that is not listed."""
    word: str | None = load_schema("derive/series.yaml")["codes"][rule].get((value or "").strip().upper())
    return word


def agent_says(agent: str | None) -> str | None:
    """``yes`` or ``no`` from one image's ContrastBolusAgent; None where it is absent or empty (which says nothing).

    Examples
    --------
    >>> agent_says("none"), agent_says("Omnipaque 300"), agent_says(" ")
    ('no', 'yes', None)
    """
    plain = (agent or "").strip().upper()
    if not plain:
        return None
    return "no" if plain in load_schema("derive/contrast.yaml")["agent_none"] else "yes"


def normal_text(text: str | None) -> str:
    """A text in upper case with single spaces for everything but letters and digits, and a space at both ends."""
    return f" {re.sub('[^A-Z0-9]+', ' ', (text or '').upper()).strip()} "


@cache
def _words(phrases: tuple[str, ...]) -> re.Pattern[str]:
    # Longest first, so that replacing WITHOUT CONTRAST never leaves CONTRAST behind.
    listed = sorted(set(phrases), key=lambda phrase: (-len(phrase), phrase))
    return re.compile("(?<= )(?:" + "|".join(map(re.escape, listed)) + ")(?= )" if listed else r"(?!)")


def plain_number(value: float) -> float:
    """A measure without what single precision leaves of it: with more than nine significant digits it is rounded to seven.

    Devices compute in 24 bits and write what comes out, and then slices of 1.5 mm are not ``<= 1.5``.

    Examples
    --------
    >>> plain_number(1.6000000238419), plain_number(1.4999999875777), plain_number(0.48828125), plain_number(-0.0)
    (1.6, 1.5, 0.48828125, 0.0)
    """
    return (value if value == float(f"{value:.9g}") else float(f"{value:.7g}")) + 0.0


def description_says(texts: Iterable[str | None]) -> str | None:
    """``yes``, ``no`` or ``conflict`` from descriptions; None where they say nothing.

    Examples
    --------
    >>> description_says(["Head non-contrast"]), description_says(["THORAX POST CONTRAST", "head w/o contrast"]), description_says(["Head"])
    ('no', 'conflict', None)
    """
    rule = load_schema("derive/contrast.yaml")
    said = set()
    for text in map(normal_text, texts):
        text = _words((*rule["other"], *(f"WITHOUT {what}" for what in rule["without_other"]))).sub("", text)
        if _words(tuple(rule["both"])).search(text):
            said |= {"yes", "no"}
        if _words(tuple(rule["no"])).search(text):
            said.add("no")
        if _words(tuple(rule["yes"])).search(_words(tuple(rule["no"])).sub("", text)):
            said.add("yes")
    return _agreed(said)


def _agreed(said: set[str]) -> str | None:
    return "conflict" if len(said) > 1 else next(iter(said), None)


def contrast(agents: Iterable[str | None], texts: Sequence[str | None], study_texts: Sequence[str | None]) -> tuple[str, str]:
    """Whether contrast was given in a series: (yes, no or unknown; the evidence).

    Parameters
    ----------
    agents : `agent_says` of its images.
    texts, study_texts : its own descriptions and its study's; the study's count only where its own say nothing.

    Notes
    -----
    Agreeing evidence is credited to ContrastBolusAgent. Any disagreement gives ``unknown`` with evidence ``conflict``; silence gives
    ``unknown`` with evidence ``none``.
    """
    agent = _agreed({said for said in agents if said is not None})
    words = description_says(texts) or description_says(study_texts)
    answer = _agreed({said for said in (agent, words) if said is not None})
    if answer is None:
        return "unknown", "none"
    if answer == "conflict":
        return "unknown", "conflict"
    return answer, "ContrastBolusAgent" if agent else "description"


def contrast_phase(header: Iterable[str], texts: Sequence[str | None], study_texts: Sequence[str | None]) -> tuple[str | None, str]:
    """Phase of contrast of a series: (one of vocabulary contrast_phase, the evidence); None with ``conflict`` where several are told.

    Parameters
    ----------
    header : phases that its headers tell, which win over descriptions.
    texts, study_texts : its own descriptions and its study's; the study's count only where its own say nothing.

    Examples
    --------
    >>> contrast_phase([], ["Abdomen portal venous 5.0"], ["CT arterial"]), contrast_phase([], ["arterial", "delayed"], [])
    (('PORTAL_VENOUS', 'description'), (None, 'conflict'))
    """
    told, evidence = set(header), "ContrastBolusAgentPhase"
    if not told:
        told, evidence = set(_told("phases", texts) or _told("phases", study_texts)), "description"
    if len(told) == 1:
        return told.pop(), evidence
    return None, "conflict" if told else "none"


def portable(models: Iterable[bool], texts: Sequence[str | None], study_texts: Sequence[str | None]) -> tuple[str, str]:
    """Whether a series was made with a device wheeled to the patient: (yes or unknown, the evidence). Nothing tells that it was not.

    Parameters
    ----------
    models : `model_is_portable` of its images.
    texts, study_texts : its own descriptions and its study's.
    """
    if any(models):
        return "yes", "ManufacturerModelName"
    words = _words(tuple(load_schema("derive/descriptions.yaml")["portable"]))
    if any(words.search(normal_text(text)) for text in (*texts, *study_texts)):
        return "yes", "description"
    return "unknown", "none"


def implant(header: Iterable[str], texts: Sequence[str | None], study_texts: Sequence[str | None]) -> tuple[str, str]:
    """Whether an implant is in the images: (yes, no or unknown; the evidence). Headers that disagree with descriptions are a conflict.

    Parameters
    ----------
    header : yes and no as BreastImplantPresent of its images says.
    texts, study_texts : its own descriptions and its study's; the study's count only where its own say nothing.

    Examples
    --------
    >>> implant(["no"], [], []), implant(["no"], ["R MLO implant displaced"], []), implant([], [], ["XR hip prosthesis"])
    (('no', 'BreastImplantPresent'), ('unknown', 'conflict'), ('yes', 'description'))
    """
    said, words = set(header), set(_told("implant", texts) or _told("implant", study_texts))
    answer = _agreed(said | words)
    if answer is None:
        return "unknown", "none"
    if answer == "conflict":
        return "unknown", "conflict"
    return answer, "BreastImplantPresent" if said else "description"


@lru_cache(4096)
def description_words(text: str) -> tuple[str, ...]:
    """Words of the closed list description_word that a description has, in the order of the list.

    Examples
    --------
    >>> description_words("t2_flair_tra FS"), description_words("QUOLLINGWORTH")
    (('T2', 'FLAIR', 'FAT_SUPPRESSED'), ())
    """
    return _told("words", [text])


def _told(group: str, texts: Iterable[str | None]) -> tuple[str, ...]:
    """The words of a group of descriptions.yaml whose phrases are in texts, in the order of the file; a longer phrase hides those in it."""
    phrases = _phrases(group)
    found = {phrases[phrase[0]] for text in texts for phrase in _words(tuple(phrases)).finditer(normal_text(text))}
    return tuple(word for word in load_schema("derive/descriptions.yaml")[group] if word in found)


@cache
def _phrases(group: str) -> dict[str, str]:
    return {phrase: word for word, phrases in load_schema("derive/descriptions.yaml")[group].items() for phrase in phrases}


@cache
def body_part_terms() -> tuple[str, ...]:
    """Every BodyPartExamined term that schemas/derive/body_region.yaml knows; the closed list that may cross."""
    return tuple(sorted(_region_terms()))


@cache
def _region_terms() -> dict[str, tuple[str, ...]]:
    rule = load_schema("derive/body_region.yaml")
    return {term: (region,) for region, terms in rule["terms"].items() for term in terms} | {
        term: tuple(regions) for term, regions in rule["several"].items()
    }


@cache
def _region_words() -> dict[str, re.Pattern[str]]:
    rule = load_schema("derive/body_region.yaml")
    words = {region: list(rule["words"].get(region, ())) for region in vocabulary("body_region")}
    for term, regions in _region_terms().items():
        if term not in rule["not_words"]:
            for region in regions:
                words[region].append(term)
    return {region: _words(tuple(listed)) for region, listed in words.items()}


def regions_in_texts(texts: Iterable[str | None]) -> tuple[str, ...]:
    """Regions that texts name, in the order of the vocabulary; empty where they name none.

    Examples
    --------
    >>> regions_in_texts(["XR Neck of femur"]), regions_in_texts(["CT TAP"]), regions_in_texts(["3 plane loc"])
    (('LOWER_LIMB',), ('CHEST', 'ABDOMEN', 'PELVIS'), ())
    """
    instead = load_schema("derive/body_region.yaml")["instead"]
    found = set()
    for text in map(normal_text, texts):
        text = _words(tuple(instead)).sub(lambda phrase: instead[phrase[0]], text)
        found |= {region for region, words in _region_words().items() if words.search(text)}
    return tuple(region for region in vocabulary("body_region") if region in found)


@cache
def regions_of_term(term: str | None) -> tuple[str, ...]:
    """Regions of a BodyPartExamined, as a defined term and else by its words; empty where it is missing or unknown."""
    return _region_terms().get(re.sub("[^A-Z0-9]+", "", (term or "").upper()), ()) or regions_in_texts([term])


def body_region(terms: Iterable[str], texts: Sequence[str | None], study_texts: Sequence[str | None]) -> tuple[tuple[str, ...], str, bool]:
    """Regions of a series: (regions in the order of the vocabulary, evidence, whether the evidence disagrees).

    Parameters
    ----------
    terms : `regions_of_term` of its images, all in one.
    texts, study_texts : its own descriptions and its study's; the study's count only where its own name no region.

    Notes
    -----
    BodyPartExamined wins where it is known, though it is often wrong: the evidence disagrees where descriptions name regions and none of
    them is among its own. An empty set has evidence ``none``.
    """
    told = set(terms)
    words = regions_in_texts(texts) or regions_in_texts(study_texts)
    if told:
        return tuple(r for r in vocabulary("body_region") if r in told), "BodyPartExamined", bool(words) and not told & set(words)
    return words, "description" if words else "none", False


def plurality(values: Iterable[str | None]) -> tuple[str | None, bool]:
    """The value met most often and whether more than one was met; None on a tie or where none was met. Missing values take no part.

    Examples
    --------
    >>> plurality(["AXIAL", "AXIAL", None, "CORONAL"]), plurality(["AXIAL", "CORONAL"]), plurality([])
    (('AXIAL', True), (None, True), (None, False))
    """
    counts = Counter(value for value in values if value is not None).most_common()
    if not counts or (len(counts) > 1 and counts[0][1] == counts[1][1]):
        return None, len(counts) > 1
    return counts[0][0], len(counts) > 1
