"""Identities: SPIFFE IDs, an embedded authority, X.509-SVIDs, trust bundles and the files that carry them."""
