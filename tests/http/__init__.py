"""HTTP and sockets: what comes through the door, and what does not."""
