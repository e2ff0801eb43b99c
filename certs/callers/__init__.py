"""Proves who asks the authority, from what Kubernetes vouches for: tokens of ServiceAccounts and the pods they bind."""
