"""Why an image could not be examined: reason codes of schemas/pixels/reasons.yaml, with sentences free of input values."""

from pictures_spark.resources import load_schema


class PixelFault(Exception):
    """One image could not be examined. It ends as a quarantine row, never as a failed job.

    Parameters
    ----------
    reason : a code of schemas/pixels/reasons.yaml.
    more : words to add to the code's sentence; no value of the input may be in them.
    """

    def __init__(self, reason: str, more: str | None = None) -> None:
        reasons = load_schema("pixels/reasons.yaml")
        sentence = {**reasons["image"], **reasons["feature"]}[reason]
        self.reason = reason
        self.more = more
        self.detail = f"{sentence} ({more})" if more else sentence
        super().__init__(self.detail)
