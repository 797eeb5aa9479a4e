"""Sockets that drive `valkeep.wire`: endpoints, connections, what a server says about itself."""
