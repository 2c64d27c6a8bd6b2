"""Who a workload is, and proving it: SPIFFE certificates, their issue and renewal, TLS with them, their revocation.

Rules: keys live in memory only; nothing but `secrets` and `watch` touches a loop, and time comes from outside.
Does not belong here: HTTP/2 and bytes on the way (see `hbone`), who may speak to whom (see `state`).
"""
