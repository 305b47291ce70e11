"""Programs around the project: none of them is part of what is installed."""
