"""The nation's scans as header documents, for ``pictures synth --extracts N --documents``.

Enters: images as `nation_archive` makes them, with their names in the archive. Leaves: a file for each collection of SmiServices
(../../schemas/dicom/mongodb.yaml) that the scans could need, a document a line in MongoDB's relaxed extended JSON: what ``mongoimport``
takes. They say what a documents-only site has: image documents, and the document of each series.
"""

from functools import cache
from pathlib import Path

from bson.json_util import RELAXED_JSON_OPTIONS, dumps

from pictures_spark.dicom.mongodb import SERIES_COLLECTION, Document, collection, document, series_document
from pictures_spark.dicom.scan import Elements, scan
from pictures_spark.synthetic.scanning import scanning

# Stands for the run in the GUIDs of messages that were never sent.
_RUN = "synth"


@cache
def collections() -> tuple[str, ...]:
    """Collections that the nation's scans could be in, ``series`` among them."""
    modalities = {entry["Modality"] for protocol in scanning()["protocols"].values() for entry in protocol["series"]}
    return (*sorted({collection(modality) for modality in modalities}), SERIES_COLLECTION)


class Documents:
    """Files of documents that grow by images.

    Parameters
    ----------
    container : the archive's file, below its root, that the images are or would be in.
    paths : a file for each of `collections`.
    """

    def __init__(self, container: str, paths: dict[str, Path]) -> None:
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        self._container = container
        self._files = {name: path.open("w", encoding="utf-8", newline="\n") for name, path in paths.items()}
        self._series: tuple[str, Elements, str, int] | None = None

    def add(self, name: str, content: bytes) -> None:
        """Add an image by its name in the container. Images of a series come one after another."""
        elements, locator = scan(content).elements, f"{self._container}!{name}"
        uid, series = _text(elements, "00080018"), _text(elements, "0020000E")
        self._write(collection(_text(elements, "00080060")), document(elements, uid, False, locator, len(content), _RUN))
        if self._series is None or self._series[0] != series:
            self._end_series()
            self._series = (series, elements, locator, 0)
        self._series = (*self._series[:3], self._series[3] + 1)

    def close(self) -> None:
        """Write the last series."""
        self._end_series()
        for file in self._files.values():
            file.close()

    def _end_series(self) -> None:
        if self._series is not None:
            uid, elements, locator, images = self._series
            self._write(SERIES_COLLECTION, series_document(elements, uid, locator, images))
            self._series = None

    def _write(self, name: str, told: Document) -> None:
        self._files[name].write(dumps(told, json_options=RELAXED_JSON_OPTIONS, ensure_ascii=False) + "\n")


def _text(elements: Elements, tag: str) -> str:
    return str(elements[tag]["Value"][0])
