"""spark-submit jobs/select.py question.yaml --conf-file conf/local.yaml - the same as `pictures cohort freeze`."""

import sys

from pictures_spark.cli import main

if __name__ == "__main__":
    sys.exit(main(["cohort", "freeze", *sys.argv[1:]]))
