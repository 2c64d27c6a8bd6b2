"""The node proxy itself: what decides, speaks, counts and listens, put together on one loop.

Rules: asyncio and sockets are here, decisions are not; a connection is refused, carried or cut, and always told of.
Does not belong here: clusters (see `netwarren.cluster.mesh`), protocols and decisions (see the packages beside).
"""
