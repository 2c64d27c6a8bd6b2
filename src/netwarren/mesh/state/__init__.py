"""What the node proxy knows and decides: its configuration, its indices, where connections go, who may connect.

Rules: pure: data in, data out; no sockets, no clock, no randomness but what the caller hands in.
Does not belong here: carrying out a decision (see `mesh.hbone`, `mesh.proxy`).
"""
