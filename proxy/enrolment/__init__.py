"""Gets identities and bundles from outside: authority, Workload API, command, endpoints of a federation.

Everything here waits for others, off the byte path, and gives what it got as files in memory.
"""
