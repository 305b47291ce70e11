"""The demo: two sandbox clouds, a server and a database of its own, and the tour through them."""
