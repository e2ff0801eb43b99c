"""Several workers under one supervisor (`runtime.workers`): one sidecar that uses several cores."""
