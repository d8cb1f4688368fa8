"""Requests as drafts: what is checked, allocated, planned and recorded. Nothing here touches the host."""
