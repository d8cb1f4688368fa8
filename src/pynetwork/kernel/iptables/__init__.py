"""The firewall of hosts without nftables: the same resources as rules of iptables.

``rules`` says what a resource is in iptables, without touching any; ``worker`` is the process that
writes them with python-iptables, one for each family; ``firewall`` is the port. Nothing is imported
here: the worker needs little of it, and starts the sooner.
"""
