"""A small mesh that runs on one machine: three workloads, their sidecars, and a tour of who may call whom."""
