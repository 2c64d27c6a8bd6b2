"""In and around pods: traffic redirected to the node proxy, its sockets there, and who tells it which pods there are.

Rules: rules, messages and states are data; what enters a pod comes back to where its thread stood.
Does not belong here: what the proxy does with a connection (see the other packages of `netwarren.mesh`).
"""
