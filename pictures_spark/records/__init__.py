"""Health-record extracts to typed events: every source is a file of schemas/records/, read by one interpreter."""
