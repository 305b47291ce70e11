"""The REST API: one file per noun. No queries and no rules of the domain; documents in, read models out."""
