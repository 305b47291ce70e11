"""What the sandbox cannot work with."""


class ConfigError(ValueError):
    """A configuration or a fault that cannot be used: names the field, the reason and the way out."""
