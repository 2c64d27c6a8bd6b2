"""Verbs over Linux, one noun a file: syscalls, namespaces, mounts, netlink, sysctl, processes.

Rules: no program is ever called; every verb names its `ip`, `mount` or `sysctl` equivalent and its
source; errors are `KernelError` and say what was being done.
Does not belong here: clusters, pods, names, addresses to choose, or any state that outlives a call.
"""
