"""What happens: one module per capability, verb-first functions."""
