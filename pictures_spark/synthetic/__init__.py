"""A synthetic archive with linked records, and the truth about it: seeded, small, and full of the trouble that real data has."""
