"""A pixels child that misbehaves where an object's path says so; for the tests of its supervision."""

import ctypes
import os
import sys
import time

from pictures_spark.pixels.child import fetch_from, serve
from pictures_spark.pixels.examine import Examiner
from pictures_spark.roots import Root


class Faulty(Examiner):
    def examine(self, locator, names, text):
        fault = locator.path.rsplit("/", 1)[-1].split(".")[0]
        if fault == "hang":
            time.sleep(3600)
        if fault == "drip":
            while True:
                time.sleep(0.02)
                self._done()
        if fault == "crash":
            ctypes.string_at(0)
        if fault == "leave":
            os._exit(0)
        if fault == "bomb":
            self.kept = [bytearray(1 << 28) for _ in range(400)]
        if fault == "print":
            os.write(1, b"a library speaks")
            os.write(2, b"of the patient")
        return super().examine(locator, names, text)


if __name__ == "__main__":
    if sys.argv[1] == "broken":
        sys.exit(1)
    serve(lambda settings, done: Faulty(fetch_from(Root(**settings["root"])), settings["max_samples"], done))
