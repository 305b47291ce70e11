"""A client of Leeway's REST API, for the commands and for whoever writes programs. Imports nothing else of Leeway."""
