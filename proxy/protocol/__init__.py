"""HTTP codecs without I/O: the strict gate, header rules, path normal form, one interface per stream."""
