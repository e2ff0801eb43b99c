"""The command `remora policy`: explain, lint, test and diff policies without a cluster, from the files that are run."""
