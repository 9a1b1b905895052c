"""Cohorts: a question in YAML becomes a typed graph, the graph one relational plan, and the plan the same answer on every engine."""
