"""Pixels: frames to features and boxes of burned-in text, in a supervised child per Spark task."""
