"""Run every benchmark, one after the other, and print their results as a table.

python benchmarks/all.py
"""

import json
import subprocess
import sys
from pathlib import Path

HELPERS = {"all", "archive", "measure", "tenfold"}


def main() -> None:
    folder = Path(__file__).parent
    results, failed = [], []
    for script in sorted(folder.glob("*.py")):
        if script.stem in HELPERS:
            continue
        print(f"{script.name}", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, check=False)
        failed += [script.name] if done.returncode else []
        for text in done.stdout.splitlines():
            if text.startswith("{"):
                print(text, flush=True)
                results.append(json.loads(text))
    rows = [("name", "ours", "peer", "ratio", "unit", "n", "peer is")]
    rows += [(r["name"], *(f"{r[key]:,}" for key in ("ours", "peer", "ratio")), r["unit"], f"{r['n']:,}", r["peer_name"]) for r in results]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
