"""Where planned images lie in the archive: loose files, a zip per study, a tar per series, and things that are no images at all.

Enters: planned studies and the sample files. Leaves: for each file of the archive its path and a function that makes its bytes, and for
each planned object its locator. Pure; driver. Times inside containers are fixed, so that the same plan gives the same bytes.
"""

import io
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

from pictures_spark.synthetic.headers import dicom_file
from pictures_spark.synthetic.samples import sample_files
from pictures_spark.synthetic.scans import Series, Study

# 1 January 2020, 00:00 UTC: the modification time of everything, after the last scan.
MTIME = 1_577_836_800
_ZIP_TIME = (2020, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Placed:
    """One planned object and where it lies: a file of the archive, and the member if that file is a container."""

    study: Study
    series: Series
    number: int
    path: str
    member: str | None = None
    retold: bool = False

    @property
    def locator(self) -> str:
        """As in table ``object``: the path below the archive root, with ``!member``."""
        return self.path if self.member is None else f"{self.path}!{self.member}"

    def content(self) -> bytes:
        """The object's own bytes."""
        return dicom_file(self.study, self.series, self.number, self.retold)


def place(studies: list[Study]) -> list[Placed]:
    """Locators of every image, by the layout of its study; copies lie in a second place."""
    placed = []
    for study in studies:
        for series in study.series:
            for number in range(1, series.images + 1):
                placed.append(_place(study, series, number))
                if study.copies != "none":
                    path = f"resent/{study.day:%Y}/{study.accession}-{series.number}-{number}"
                    placed.append(Placed(study, series, number, path, retold=study.copies == "other"))
    return placed


def _place(study: Study, series: Series, number: int) -> Placed:
    match study.layout:
        case "loose":
            # Archives name files in many ways; every other series here has no extension.
            suffix = ".dcm" if series.number % 2 else ""
            return Placed(study, series, number, f"{study.day:%Y/%m/%d}/{study.accession}/IM-{series.number:04d}-{number:04d}{suffix}")
        case "tar":
            return Placed(study, series, number, f"tar/{study.day:%Y/%m}/{series.uid}.tar", f"{number:06d}.dcm")
    return Placed(study, series, number, f"zip/{study.day:%Y}/{study.accession}.zip", f"{series.number:03d}/{number:06d}.dcm")


def files(placed: list[Placed]) -> dict[str, Callable[[], bytes]]:
    """Every file of the archive, by path, with the function that makes its bytes."""
    by_path: dict[str, list[Placed]] = {}
    for item in placed:
        by_path.setdefault(item.path, []).append(item)
    result: dict[str, Callable[[], bytes]] = {}
    for path, items in by_path.items():
        if items[0].member is None:
            result[path] = items[0].content
        elif items[0].study.layout == "tar":
            result[path] = lambda items=items: _tar(items)  # type: ignore[misc]
        else:
            result[path] = lambda items=items: _zip(items)  # type: ignore[misc]
    samples = sample_files()
    for name, sample in samples.items():
        result[f"pydicom-samples/{name}"] = sample.read_bytes
    result.update(_odd(samples["test_files/CT_small.dcm"].read_bytes(), samples["test_files/MR_small.dcm"].read_bytes()))
    return result


def _zip(items: list[Placed]) -> bytes:
    packing = zipfile.ZIP_DEFLATED if items[0].study.layout == "zip_deflated" else zipfile.ZIP_STORED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as container:
        for item in items:
            info = zipfile.ZipInfo(str(item.member), _ZIP_TIME)
            # The system that packed it would otherwise be noted: 3 is Unix.
            info.create_system = 3
            info.external_attr = 0o644 << 16
            container.writestr(info, item.content(), packing, 6)
    return buffer.getvalue()


def _tar(items: list[Placed]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as container:
        for item in items:
            content = item.content()
            info = tarfile.TarInfo(str(item.member))
            info.size, info.mtime = len(content), MTIME
            container.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _odd(ct: bytes, mr: bytes) -> dict[str, Callable[[], bytes]]:
    """What lies in archives beside images."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as container:
        container.writestr(zipfile.ZipInfo("1.dcm", _ZIP_TIME), ct)
    return {
        "odd/notes.txt": lambda: b"Tapes 12 to 15 were read on a Tuesday.\n",
        "odd/empty.dcm": lambda: b"",
        "odd/cut_in_header.dcm": lambda: ct[:500],
        "odd/cut.zip": lambda: packed.getvalue()[: len(ct) // 2],
        "odd/image_named_as_text.txt": lambda: mr,
    }
