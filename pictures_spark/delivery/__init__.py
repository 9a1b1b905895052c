"""Deliveries: a frozen cohort, de-identified, in a project private zone."""
