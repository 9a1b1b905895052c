"""Mutated headers: each is read, or refused with a declared reason, the same by `scan` and by `Headers`; none hangs or takes much memory.

PICTURES_FUZZ is how many, PICTURES_FUZZ_SEED the seed (`make fuzz` sets 200,000); a mutant is made again by `mutants.mutant(seed, number)`.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import mutants

COUNT = int(os.environ.get("PICTURES_FUZZ", "1500"))
SEED = int(os.environ.get("PICTURES_FUZZ_SEED", "1"))
# As many children as the machine is likely to have cores for, but one for the slice in the suite.
CHILDREN = 2 if COUNT >= 20_000 else 1


def test_mutated_headers_are_read_or_refused_with_a_reason():
    share = -(-COUNT // CHILDREN)
    ranges = [(first, min(share, COUNT - first)) for first in range(0, COUNT, share)]
    children = [
        subprocess.Popen([sys.executable, mutants.__file__, str(SEED), str(first), str(count)], stdout=subprocess.PIPE)
        for first, count in ranges
    ]
    found = [json.loads(line) for child in children for line in child.communicate()[0].splitlines()]
    counts = sum((Counter(part["counts"]) for part in found), Counter())
    faults = [fault for part in found for fault in part["faults"]]
    slowest, grown = (max(part[name] for part in found) for name in ("slowest", "grown_mb"))
    print(f"\nseed {SEED}: {COUNT:,} mutants; slowest {slowest:.2f} s, memory +{grown:.0f} MB; {dict(counts.most_common())}; {faults[:50]}")
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / "mutants"
    for number, _ in faults[:50]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{SEED}-{number}.dcm").write_bytes(mutants.mutant(SEED, number))
    assert faults == []
    assert grown < 200
    assert sum(counts.values()) == COUNT
    # Neither all refused nor all read: the mutants are worth reading.
    assert COUNT * 0.2 < counts["dicom"] < COUNT * 0.8
