"""spark-submit jobs/pixels.py --conf-file conf/local.yaml - the same as `pictures pixels`."""

import sys

from pictures_spark.cli import main

if __name__ == "__main__":
    sys.exit(main(["pixels", *sys.argv[1:]]))
