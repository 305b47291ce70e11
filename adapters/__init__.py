"""One cloud API each, behind the ports of `broker.ports`. The only package that sees libcloud."""
