"""A node: who is connected, which channels they are in, and the way of a publication to them. No sockets."""
