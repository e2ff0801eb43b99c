"""Pages for probes, scrapers and people."""
