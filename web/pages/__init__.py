"""The pages: plain HTML without scripts, of the same read models as the API."""
