"""Pure decisions: names, addresses, and the plan of links, addresses and routes that a change needs.

Rules: data in, data out; no I/O, no clock, no kernel, so that all of it is tested without privileges.
Does not belong here: carrying a plan out (see `netwarren.cluster`).
"""
