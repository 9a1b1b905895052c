"""How fast DICOM is de-identified, and what is left in it: ours against the peers that pip installs, on the same files, on one core.

    python benchmarks/deidentify.py [--series 20] [--large 200] [--patients 40] [--only NAME ...]

- deid_headers: pydicom's own image files, all distinct, each as if of a person of its own; failures and residues of everyone are counted
  in the same run. A residue is a file that still holds an original instance UID, name, patient id, accession number or institution.
- deid_series: series of 200 small instances that vary as a scanner's do, never seen before.
- deid_check: the same series, their results checked against their sources by separate code, v that many parsed twice by pydicom.
- deid_copy_ratio: files of 0.5 MB, read, de-identified and written, against a plain copy.
- deid_score: the ten actions of the MIDI-B challenge over synthetic patients planted in pydicom's files and in generated ones.

Rates of deid_headers and deid_series are per second of one core's time (everyone runs in one process), so that other load on the machine
changes them little; deid_copy_ratio is by the clock.

Peers live in a virtual environment of their own below .cache/benchmarks, made at the first run; nothing of ours depends on them.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import archive
import pydicom
from measure import alternate, line
from pydicom.uid import UID_dictionary

from pictures_spark.deid.act import Deidentifier, WithheldError
from pictures_spark.deid.dicom_identity import make_identity
from pictures_spark.deid.plan import load_plan
from pictures_spark.deid.verify import Checker, verify
from pictures_spark.synthetic.answers import ACTIONS, plant_all, score

PEERS = {"dicom-anonymizer": "2.1.0", "dicognito": "0.19.0", "deid": "0.4.13", "dcmanon": "0.3.1"}
KEY = bytes(range(32))
# Run by the peers' Python: de-identify every file `rounds` times, keep the last results, print seconds of each round and failures.
DRIVER = """
import io, json, logging, os, sys, time, warnings
warnings.simplefilter("ignore"); logging.disable(logging.CRITICAL)
peer, listing, out, rounds = sys.argv[1:5]
paths = open(listing).read().splitlines()
def saved(dataset):
    buffer = io.BytesIO(); dataset.save_as(buffer); return buffer.getvalue()
if peer == "dicom-anonymizer":
    import pydicom; from dicomanonymizer import anonymize_dataset
    def run(path):
        dataset = pydicom.dcmread(path); anonymize_dataset(dataset); return saved(dataset)
elif peer == "dicognito":
    import pydicom; from dicognito.anonymizer import Anonymizer
    anonymizer = Anonymizer(seed="seed")
    def run(path):
        dataset = pydicom.dcmread(path); anonymizer.anonymize(dataset); return saved(dataset)
elif peer == "deid":
    from deid.dicom import get_identifiers, replace_identifiers
    def run(path):
        ids = get_identifiers([path]); return saved(replace_identifiers([path], ids=ids, save=False)[0])
else:
    from dcmanon import Anonymizer
    anonymizer = Anonymizer()
    def run(path):
        return anonymizer.anonymize(path)
seconds = []
stdout, sys.stdout = sys.stdout, open(os.devnull, "w")
for number in range(int(rounds)):
    failed, results = 0, {}
    start = time.process_time()
    for place, path in enumerate(paths):
        try: results[place] = run(path)
        except Exception: failed += 1
    seconds.append(time.process_time() - start)
for place, data in results.items():
    with open(os.path.join(out, str(place)), "wb") as file: file.write(data)
print(json.dumps({"seconds": seconds, "failed": failed}), file=stdout)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=20, help="series of 200 instances")
    parser.add_argument("--large", type=int, default=200, help="files of 0.5 MB")
    parser.add_argument("--patients", type=int, default=40, help="synthetic patients of deid_score")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(".cache/benchmarks"), help="where files and peers are kept")
    parser.add_argument("--only", nargs="*", help="names of the results wanted")
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    plan = load_plan("default")
    results = []
    for name, run in (
        ("deid_headers", lambda: headers(folder, plan, given.rounds)),
        ("deid_series", lambda: series(folder, plan, given.series, given.rounds)),
        ("deid_check", lambda: checking(folder, plan, min(given.series, 5), min(given.rounds, 3))),
        ("deid_copy_ratio", lambda: copying(folder, plan, given.large)),
        ("deid_score", lambda: scored(given.patients)),
    ):
        if not given.only or name in given.only:
            print(f"  .. {name}", file=sys.stderr, flush=True)
            results += run()
    print("\n".join(results))


def headers(folder: Path, plan, rounds: int) -> list[str]:
    """Distinct image files, each of its own person."""
    paths = images(plan)
    whose = [make_identity(KEY, f"person {place}", 180, verdict="clean") for place in range(len(paths))]

    def ours() -> dict[int, bytes]:
        deidentifier, found = Deidentifier(plan), {}
        for place, path in enumerate(paths):
            try:
                found[place] = deidentifier(content(path), whose[place]).data
            except WithheldError:
                continue
        return found

    made = ours()
    seconds = median_of(ours, 5 * rounds)  # one takes a few hundredths of a second
    bad = sum(bool(verify(Path(paths[place]).read_bytes(), data, plan.policy, whose[place])) for place, data in made.items())
    tell("ours", len(paths) - len(made), residues(paths, made), len(paths) / seconds, f"; {bad} refused by our own check")
    lines = []
    for peer in PEERS:
        peers_seconds, failed, found = by_peer(folder, peer, paths, rounds)
        tell(peer, failed, residues(paths, found), len(paths) / peers_seconds)
        lines.append(line(f"deid_headers_vs_{peer}", len(paths) / seconds, len(paths) / peers_seconds, peer, "files/s/core", len(paths)))
    return lines


def series(folder: Path, plan, count: int, rounds: int) -> list[str]:
    """Series of 200 small instances, each met for the first time in every round."""
    root = folder / f"deid-series-{count}"
    paths = written_series(root, count)
    whose = {number: make_identity(KEY, f"person {number}", 180, verdict="clean") for number in range(count)}

    work = [(path, whose[int(Path(path).parent.name)]) for path in paths]

    def ours() -> None:
        deidentifier = Deidentifier(plan)
        for path, who in work:
            deidentifier(content(path), who)

    def floor() -> None:
        for path in paths:
            content(path)

    ours()
    seconds = median_of(ours, rounds)
    print(f"  .. read alone: {len(paths) / median_of(floor, rounds):,.0f} files/s", file=sys.stderr, flush=True)
    peer_seconds, failed, _ = by_peer(folder, "dcmanon", paths[:2000], rounds)
    tell("dcmanon", failed, 0, len(paths[:2000]) / peer_seconds)
    return [line("deid_series", len(paths) / seconds, len(paths[:2000]) / peer_seconds, "dcmanon", "files/s/core", len(paths))]


def checking(folder: Path, plan, count: int, rounds: int) -> list[str]:
    """The results of such series, checked one after the other; and pydicom's parse of source and result, which any check by it needs."""
    paths = written_series(folder / f"deid-series-{count}", count)
    deidentifier = Deidentifier(plan)
    pairs = []
    for path in paths:
        who, data = make_identity(KEY, f"person {Path(path).parent.name}", 180, known=["Quillfeather"], verdict="clean"), content(path)
        pairs.append((data, deidentifier(data, who).data, who))

    def ours() -> None:
        checker = Checker(plan.policy)
        assert not any(checker(*pair).findings for pair in pairs)

    def parsed() -> None:
        for source, result, _ in pairs:
            list(pydicom.dcmread(BytesIO(source)).iterall())
            list(pydicom.dcmread(BytesIO(result)).iterall())

    ours_seconds, peer_seconds = median_of(ours, rounds), median_of(parsed, rounds)
    return [line("deid_check", len(pairs) / ours_seconds, len(pairs) / peer_seconds, "pydicom parse of both", "files/s/core", len(pairs))]


def copying(folder: Path, plan, count: int) -> list[str]:
    """0.5 MB images: read, de-identify, write; and copied."""
    paths = archive.write(folder / f"large-{count}", count, pixels=archive.LARGE)
    target = folder / "deid-copies"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    who = make_identity(KEY, "person", 180, verdict="clean")
    deidentifier = Deidentifier(plan)
    places = [target / f"{number}.dcm" for number in range(len(paths))]

    def ours() -> None:
        for path, place in zip(paths, places, strict=True):
            place.write_bytes(deidentifier(content(path), who).data)

    def plain() -> None:
        for path, place in zip(paths, places, strict=True):
            shutil.copyfile(path, place)

    megabytes = sum(Path(path).stat().st_size for path in paths) / 1e6
    seconds = alternate(ours, plain)
    shutil.rmtree(target)
    return [line("deid_copy_ratio", megabytes / seconds[0], megabytes / seconds[1], "shutil.copyfile", "MB/s", len(paths))]


def scored(patients: int) -> list[str]:
    """Each of the ten actions: share of checks that pass, in percent."""
    plan = load_plan("detailed")
    passed, tried = score(plan, plant_all(patients, seed=1))
    return [
        line(f"deid_score_{action}", 100 * passed[action] / tried[action], 100, "all checks", "% of checks passed", tried[action])
        for action in ACTIONS
        if tried[action]
    ]


def images(plan) -> list[str]:
    """pydicom's image files, each content once."""
    found, seen = [], set()
    for path in sorted((Path(pydicom.__file__).parent / "data").rglob("*")):
        if not path.is_file() or path.suffix in {".txt", ".py", ".pyc", ".json", ".md"}:
            continue
        data = path.read_bytes()
        digest = hashlib.sha256(data).digest()
        try:
            dataset = pydicom.dcmread(BytesIO(data))
            image = dataset.SOPClassUID in plan.image_classes and any(k in dataset for k in ("PixelData", "FloatPixelData"))
        except Exception:  # noqa: BLE001 - no DICOM file
            continue
        if image and digest not in seen:
            seen.add(digest)
            found.append(str(path))
    return found


def written_series(root: Path, count: int) -> list[str]:
    """``count`` series of 200 images of 2 KB pixels; a folder each, named by number."""
    paths = []
    chance = random.Random(3)
    scanners = archive.devices()
    for number in range(count):
        place = root / str(number)
        place.mkdir(parents=True, exist_ok=True)
        for name, data in archive._series(scanners[number % len(scanners)], number, 200, chance, 2048):
            path = place / Path(name).name
            if not path.exists():
                path.write_bytes(data)
            paths.append(str(path))
    return paths


def content(path: str) -> bytes:
    """A file's bytes by the shortest way, as a peer in another language takes."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, os.fstat(file).st_size)
    finally:
        os.close(file)


def median_of(run: Callable[[], object], rounds: int) -> float:
    """Median seconds of a core's time."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def by_peer(folder: Path, peer: str, paths: list[str], rounds: int) -> tuple[float, int, dict[int, bytes]]:
    """(median seconds of a core's time, failures, results by place) of a peer."""
    home = folder / "deid-peers"
    python = home / "bin" / "python"
    if not python.is_file():
        venv.create(home, with_pip=True)
        wanted = [f"{name}=={version}" for name, version in PEERS.items()]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    out = folder / "deid-out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    listing = folder / "deid-files.txt"
    listing.write_text("\n".join(paths))
    driver = folder / "deid-driver.py"
    driver.write_text(DRIVER)
    done = subprocess.run(
        [python, driver, peer, listing, out, str(rounds)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    )
    said = json.loads(done.stdout.splitlines()[-1])
    results = {int(path.name): path.read_bytes() for path in out.iterdir()}
    shutil.rmtree(out)
    return statistics.median(said["seconds"]), said["failed"], results


def residues(paths: list[str], made: dict[int, bytes]) -> int:
    """How many results still hold an original identifier."""
    return sum(any(value in data for value in identifiers(paths[place])) for place, data in made.items())


def identifiers(path: str) -> Iterator[bytes]:
    """Original instance UIDs, names, ids and places of a file, as bytes; those too short to search for are left out."""
    dataset = pydicom.dcmread(path)
    words = {"PatientID", "AccessionNumber", "InstitutionName", "OtherPatientIDs", "InstitutionAddress"}
    for element in dataset.iterall():
        values = [element.value] if element.VM == 1 else list(element.value or [])
        for value in map(str, values):
            uid = element.VR == "UI" and value not in UID_dictionary and len(value) >= 16
            person = (element.VR == "PN" or element.keyword in words) and len(value) >= 8
            if uid or person:
                yield value.encode("utf-8", "replace")


def tell(who: str, failed: int, left: int, rate: float, more: str = "") -> None:
    print(f"  .. {who}: {rate:,.0f} files/s, {failed} failed, {left} with residues{more}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
