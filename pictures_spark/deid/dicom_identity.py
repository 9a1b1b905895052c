"""Who an instance belongs to in a project, as the de-identification engine needs to know it.

What enters: the project's derived key and what the identifiable zone knows of the person and of the text in the pixels. What leaves: an
:class:`Identity`, made on executors for one instance; it holds identifiers and is never written, logged or sent anywhere.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pictures_spark.keys import date_shift_days, pseudonym, pseudonymous_uid


@dataclass(frozen=True)
class Box:
    """A rectangle of text in the pixels: frames from 0, both ends included; x1 and y1 exclusive, in pixels of the decoded frame."""

    frame_from: int
    frame_to: int
    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True)
class Identity:
    """One person in one project, and one instance's verdict on text in its pixels.

    ``patient`` is the project's pseudonym, ``shift_days`` moves every date, ``known`` holds every identifier of the person that the zone
    knows (for the scrub and the check), ``verdict`` is clean, text, not_determined or None where the pixels were never looked at;
    ``overlays_clean`` says that its overlays were read and no text is in them.
    """

    key: bytes = field(repr=False)
    patient: str
    shift_days: int
    known: frozenset[str] = field(repr=False)
    verdict: str | None
    boxes: tuple[Box, ...] = ()
    overlays_clean: bool = False

    def uid(self, value: str) -> str:
        """The project's UID for an instance UID of the source; equal for equal values, whatever the attribute."""
        return pseudonymous_uid(self.key, value)

    def accession(self, value: str) -> str:
        """The project's accession number, 16 characters (the most that SH holds)."""
        return pseudonym(self.key, "accession", value)[:16]


def project_patient(key: bytes, subject: str) -> str:
    """The project's pseudonym of a zone patient_id; of the zone study_id for a scan that is linked to nobody."""
    return pseudonym(key, "patient", subject)


def make_identity(
    key: bytes,
    subject: str,
    shift_limit: int,
    known: Iterable[str | None] = (),
    verdict: str | None = None,
    boxes: Iterable[Box] = (),
    overlays_clean: bool = False,
) -> Identity:
    """Derive an identity from the project key and the zone's id of the subject (see `project_patient`)."""
    return Identity(
        key=key,
        patient=project_patient(key, subject),
        shift_days=date_shift_days(key, subject, shift_limit),
        known=frozenset(value for value in known if value),
        verdict=verdict,
        boxes=tuple(boxes),
        overlays_clean=overlays_clean,
    )
