"""The schema as it is promised."""
