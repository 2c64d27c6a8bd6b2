"""The control plane of ztunnels that are programs, both ends of it: certificates and discovery, by gRPC, as istiod has them.

Rules: messages are data in, data out; asyncio stands only in the two ends of gRPC, `tls_stream`, `server`, `endpoint` and the two clients.
Does not belong here: what is issued (see `identity`), what is known of the mesh (see `state`).
"""
