"""Key sets behind a `jwksUri`: fetched in the background, so that no request waits for an issuer.

    policy names URIs -> KeyStore.follow -> Fetcher: look up, judge every address, Download in a thread -> KeySet
    a request with a token -> KeyStore.keys -> what was fetched last, or None: 401

A `jwksUri` is a URL from a policy file that this process, inside the mesh, goes to. So where it may lead is judged by
address and not by name, once: the connection goes to exactly the address that was judged (`target.py`).
"""
