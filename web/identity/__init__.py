"""Who may do what, and the secrets that Leeway keeps for them."""
