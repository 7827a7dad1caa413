"""Training SSP-SAM: the published losses and stages, and a plain loop that survives being killed."""
