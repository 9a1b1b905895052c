"""``pictures synth --tables N``: a nation of N people as the tables of the de-identified zone, with its answer key.

Enters: how many people, and schemas/synthetic/ (nation, scanning, questions). Leaves: one release, and below ``truth/`` of the zone what is
true by construction: ``questions.csv`` (units that are in a question's answer, or only nearly) and ``traps.csv`` (studies that a site's
systems have spoiled, and how). No archive and no extract is made on the way: columns of scans are told by publish's own rules from planned
headers. Ids are drawn, not keyed, because nobody exists. Tables image, tag and study_tag are not made.

People are made in batches on the driver, and the bytes of every row depend on seed and person alone; Spark checks and writes.
Counts: ``seen`` and ``written`` are rows of all tables.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc_csv

from pictures_spark.job import Job
from pictures_spark.keys import fingerprint
from pictures_spark.resources import code_fingerprint
from pictures_spark.synthetic import published
from pictures_spark.synthetic.draws import Draws, Whole, day
from pictures_spark.synthetic.lives import Lives, People, lead
from pictures_spark.synthetic.nation import (
    event_tables,
    first_day,
    homes,
    last_day,
    patient_table,
    people,
    residence_table,
    source_cover_table,
)
from pictures_spark.synthetic.questions import planted
from pictures_spark.synthetic.scanning import Scans, made, requested, scanning

PREFIX = "nation"
_BATCH = 10_000
Piece = tuple[str, pa.Table]


def run(job: Job, count: int) -> None:
    """Make the nation, or find that the last release is it.

    Raises
    ------
    ConfigError
        The zone holds releases that are not this job's.
    """
    seed = job.config["synth"]["seed"]
    wanted = fingerprint("nation", str(seed), str(count), code_fingerprint())
    truth = job.zones.path(published.ZONE, "truth", mode="write")
    published.publish(job, _kept_truth(pieces(Draws(seed), count), truth), PREFIX, wanted)


def pieces(draws: Draws, count: int, batch: int = _BATCH) -> Iterator[Piece]:
    """Rows of every table, and of ``truth/questions`` and ``truth/traps``, batch by batch; the planted people come first."""
    yield "source_cover", source_cover_table()
    plants = planted(draws)
    yield "truth/questions", plants.key
    yield from tables_of(draws, plants.lives, plants.ids, plants.scans, clean=True)
    yield from plants.reports.items()
    for start in range(0, count, batch):
        index = np.arange(start, min(start + batch, count))
        lives = lead(draws, people(draws, index), first=first_day(), last=last_day())
        yield from tables_of(draws, lives, draws.names("patient", index), wanted_scans(draws, lives))


def tables_of(draws: Draws, lives: Lives, ids: pa.Array, scans: tuple[Scans, ...], clean: bool = False) -> Iterator[Piece]:
    """Rows of one batch of people."""
    group = lives.people
    # Who died before the records start has neither a record nor a scan.
    seen = np.flatnonzero(group.death >= first_day())
    recorded, named = People(**{name: values[seen] for name, values in vars(group).items()}), ids.take(pa.array(seen))
    yield "patient", patient_table(recorded, named)
    yield "residence", residence_table(draws, recorded, named, last_day())
    event, stay = event_tables(draws, lives, ids, timed=True)
    yield "event", event
    yield "stay", stay
    board = first_board(draws, group)
    for wanted in scans:
        found = made(draws, group, ids, board, wanted, clean)
        yield from found.tables.items()
        yield "truth/traps", found.traps


def first_board(draws: Draws, group: People) -> Whole:
    """The board in which each person first lived; its sites scan them."""
    found = homes(draws, group, last_day())
    board = np.zeros(len(group), np.int64)
    # Homes are in the order of time: written backwards, the first one stays.
    board[found.who[::-1]] = found.board[::-1]
    return board


def wanted_scans(draws: Draws, lives: Lives) -> tuple[Scans, ...]:
    """The scans that illnesses led to, in the years in which there was an archive."""
    years = scanning()["years"]
    first, last = day(years["from"]), day(years["to"])
    found = []
    for wanted in lives.scans:
        keep = (wanted.on >= first) & (wanted.on <= last)
        found.append(Scans(wanted.protocol, wanted.who[keep], wanted.on[keep], np.full(int(keep.sum()), wanted.number)))
    return requested(draws, lives.people, [scans for scans in found if len(scans.who)])


def _kept_truth(pieces: Iterator[Piece], folder: Path) -> Iterator[Piece]:
    """Pass the tables on, and write what is true of them as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    writers: dict[str, pc_csv.CSVWriter] = {}
    try:
        for name, piece in pieces:
            if not name.startswith("truth/"):
                yield name, piece
                continue
            if name not in writers:
                writers[name] = pc_csv.CSVWriter(folder / f"{name.removeprefix('truth/')}.csv", piece.schema)
            writers[name].write(piece)
    finally:
        for writer in writers.values():
            writer.close()
