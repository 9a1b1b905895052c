"""spark-submit jobs/catalogue.py --conf-file conf/local.yaml - the same as `pictures catalogue`."""

import sys

from pictures_spark.cli import main

if __name__ == "__main__":
    sys.exit(main(["catalogue", *sys.argv[1:]]))
