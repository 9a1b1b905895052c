"""From the identifiers in images and records to people."""
