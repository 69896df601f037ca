"""What must always hold of what is stored: one module for what belongs together, run by `services.auditing`."""
