"""HBONE: TCP connections carried as HTTP/2 CONNECT streams over mutual TLS 1.3, between node proxies and to Envoy.

Rules: protocols (`tls`, `frames`, `connection`, `proxy_protocol`) are bytes in, bytes and events out, with the time
as a parameter; asyncio stands in `stream`, `tunnel_stream`, `session`, `transport`, `copy`, `pool` and `double`.
Does not belong here: certificates and who is trusted (`identity`), where a connection goes (`state`).
"""
