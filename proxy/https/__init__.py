"""Serves pages over TLS with a certificate that is kept fresh: what the authority and the injector's webhook share."""
