"""What radiology reports say: text in, findings out. The text itself never leaves the identifiable zone."""
