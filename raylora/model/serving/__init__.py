"""Many adapters over one frozen base, for prediction: rows of one batch may each use another adapter."""
