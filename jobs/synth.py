"""spark-submit jobs/synth.py --conf-file conf/local.yaml - the same as `pictures synth`."""

import sys

from pictures_spark.cli import main

if __name__ == "__main__":
    sys.exit(main(["synth", *sys.argv[1:]]))
