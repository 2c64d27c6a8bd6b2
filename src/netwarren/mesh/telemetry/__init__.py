"""What the node proxy tells of itself: metrics, logs, its connections, and the HTTP pages of all these.

Rules: the names, labels, texts and formats are those of Istio's ztunnel, so that dashboards and assertions fit;
who waits for something told here is woken by it and never polls.
Does not belong here: what the proxy decides and carries (its siblings), putting them together (`proxy`).
"""
