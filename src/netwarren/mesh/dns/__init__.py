"""The node proxy's name server in each pod: it answers for the mesh's services and passes on what else is asked.

Rules: what is answered follows from the question, the client and what the mesh has, by data alone (`aliases`,
`decision`); bytes are in `message`; sockets are given, or come from whoever makes them in a pod.
Does not belong here: what the mesh has (see `state`), and the cluster's own name server (see `netwarren.names`).
"""
