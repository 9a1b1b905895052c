"""How the catalogue's work is cut: what a file costs, batches, slices of a batch; and how fast earlier runs were.

Work is cut by cost, never by the number of files: a cine of 100 MB is a slice, and so are 1,500 images of 10 KB, whatever folders they
are in. Nobody knows before reading whether a large file is a cine or a container, so there are several slices for each core.
"""

import json
from pathlib import Path
from typing import Any

from pictures_spark.resources import load_schema


def planning() -> dict[str, int]:
    """What the planner reckons with; see schemas/dicom/planning.yaml."""
    return load_schema("dicom/planning.yaml")


def cost(size: int) -> int:
    """What reading a file costs, in bytes read."""
    return size + planning()["file_cost_bytes"]


def batches(sizes: list[int], limit: int) -> list[int]:
    """Batch number of each file, in order: a batch takes files until ``limit`` bytes, and at least one.

    Examples
    --------
    >>> batches([4, 4, 4, 20, 1], 8)
    [0, 0, 1, 2, 3]
    """
    numbers, number, filled = [], 0, 0
    for size in sizes:
        if filled and filled + size > limit:
            number, filled = number + 1, 0
        numbers.append(number)
        filled += size
    return numbers


def stretches(sizes: list[int], parts: int) -> list[int]:
    """Part of each file such that a part is a stretch of neighbours, whose headers are alike, and the parts cost about the same.

    Examples
    --------
    >>> stretches([1, 1, 1, 1], 2), stretches([9 << 20, 1, 1, 1], 2)
    ([0, 0, 1, 1], [0, 1, 1, 1])
    """
    costs = [cost(size) for size in sizes]
    total, before, chosen = sum(costs), 0, []
    for one in costs:
        chosen.append(min(parts - 1, (before + one // 2) * parts // total))
        before += one
    return chosen


def path_of(locator: str) -> str:
    """The file of a locator, see `pictures_spark.dicom.inventory.locator`.

    Examples
    --------
    >>> path_of("2015/a%21b.zip!IM/1"), path_of("100%25")
    ('2015/a!b.zip', '100%')
    """
    return locator.split("!", 1)[0].replace("%21", "!").replace("%25", "%")


def latest_speed(folder: Path, job: str) -> tuple[float, str] | None:
    """Costs in a second and run id of the last finished run that read something, by the reports in ``folder``."""
    found = []
    for path in folder.glob(f"{job}-*.json"):
        try:
            report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            found.append((report["ended"], report["run_id"], float(report["rates"]["cost_bytes_per_second"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another report than this, or one of a run that read nothing
    return (max(found)[2], max(found)[1]) if found else None
