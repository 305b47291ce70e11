"""Everything that faces a person or a process, and the only place where the parts are put together."""
