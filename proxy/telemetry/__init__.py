"""What happened, told once: access records, metrics, trace identifiers."""
