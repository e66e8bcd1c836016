"""The network, bytes only: transports, identity, membership, the directory of servers."""
