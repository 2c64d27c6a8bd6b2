"""The control plane of a ztunnel that is a program of its own: certificates and discovery, by gRPC, as istiod has them.

Rules: messages are data in, data out; asyncio stands only in the two ends of gRPC, `server`, `endpoint` and the two clients.
Does not belong here: what is issued (see `identity`), what is known of the mesh (see `state`).
"""
