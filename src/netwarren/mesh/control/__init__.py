"""The control plane of a ztunnel that is a program of its own: certificates and discovery, by gRPC, as istiod has them.

Rules: messages are data in, data out; asyncio stands only in `server` and `certificate_client`.
Does not belong here: what is issued (see `identity`), what is known of the mesh (see `state`).
"""
