"""Getting code into a namespace: threads, asyncio and trio tasks, sockets, programs.

Rules: a thread is always brought back or never used again; a namespace is never held across an await;
nothing here starts before it is used.
Does not belong here: what a namespace contains, or which pod it belongs to.
"""
