"""PICTURES-Spark: cohorts of clinical images, linked to health records and delivered de-identified."""

__version__ = "0.1.0"
