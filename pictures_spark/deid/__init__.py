"""De-identification: of tables (publish) and of DICOM instances (plan, act, verify)."""
