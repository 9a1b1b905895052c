"""Run the catalogue job as a process of its own that ends itself, as by kill -9, where it is about to take a named step.

    python killed.py SETTINGS [STEP]

A step is the name of a table that is about to be written, ``documents`` (MongoDB) or ``report``. Without one the job runs to its end.
"""

import os
import signal
import sys
from typing import Any

from pictures_spark import cli, report, tables
from pictures_spark.dicom import mongodb


def main() -> int:
    """Run the job; the exit code is that of `pictures catalogue`."""
    settings, *rest = sys.argv[1:]
    step = rest[0] if rest else None

    def stopping(action: Any, name_of: Any) -> Any:
        def before(*arguments: Any, **options: Any) -> Any:
            if name_of(arguments) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return action(*arguments, **options)

        return before

    for name in ("append", "merge", "remove"):
        setattr(tables, name, stopping(getattr(tables, name), lambda arguments: arguments[3]))
    mongodb.write = stopping(mongodb.write, lambda _: "documents")
    report.Report.finish = stopping(report.Report.finish, lambda _: "report")  # type: ignore[method-assign]
    return cli.main(["catalogue", "--conf-file", settings])


if __name__ == "__main__":
    sys.exit(main())
