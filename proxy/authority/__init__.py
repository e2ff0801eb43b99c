"""Runs the authority as a service: joins `certs` (who gets a certificate) with a listener, policy, metrics, a clock."""
