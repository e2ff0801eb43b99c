"""Forwarding: dial, pool, opaque tunnel, HTTP pump. Nothing here begins without a Permit."""
