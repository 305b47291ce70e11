"""Money: ledger, grants, segments, charges. Plugs into the ports of `broker.ports`."""
