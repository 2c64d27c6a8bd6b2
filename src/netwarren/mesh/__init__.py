"""The node proxy: one that enters each pod of its node and carries its traffic, with mutual TLS between nodes.

Rules: compatible on the wire with Istio's ztunnel (ambient mode) and with Envoy's HBONE; protocols and decisions
are data in, data out; asyncio stands only at the edge.
Does not belong here: clusters, and how their pods become workloads (see `netwarren.cluster`).
"""
