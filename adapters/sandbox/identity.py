"""What Keystone knows: projects, users, tokens, credentials, and the regions whose services it names.

A cloud has its own, or shares that of another region, as the regions of one OpenStack do.
"""

from dataclasses import dataclass

from adapters.sandbox.config import CloudConfig
from adapters.sandbox.entities import BOTH, READER, AppCredential, Project, Token, User
from adapters.sandbox.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Region:
    """Another region in the catalogue, and where its services are."""

    config: CloudConfig
    url: str


class Identity:
    """One Keystone."""

    def __init__(self, config: CloudConfig) -> None:
        self._config = config
        self.regions: list[Region] = []
        self.tokens: dict[str, Token] = {}
        self.app_credentials: dict[str, AppCredential] = {}
        self.projects: dict[str, Project] = {}
        self.users: dict[str, User] = {}
        self.reset()

    def reset(self, *, keep_logins: bool = False) -> None:
        """As configured; the regions stay."""
        projects = [Project(self._id("project", item.name), item.name, item.quota) for item in self._config.projects]
        self.projects = {project.id: project for project in projects}
        ids = {project.name: project.id for project in projects}
        users = [
            User(
                self._id("user", item.name),
                item.name,
                item.password,
                {ids[name]: BOTH for name in item.projects} | {ids[name]: (READER,) for name in item.reader_of},
            )
            for item in self._config.users
        ]
        self.users = {user.id: user for user in users}
        if not keep_logins:
            self.tokens = {}
            self.app_credentials = {}

    def _id(self, noun: str, name: str) -> str:
        return hex_id(self._config, noun, name)

    def admit(self, config: CloudConfig) -> None:
        """Whether a cloud of this configuration may be another region here.

        Raises:
            ConfigError: its region is there already, or projects or users differ.
        """
        for field in ("projects", "users"):
            if getattr(config, field) != getattr(self._config, field):
                raise ConfigError(f"{field}: must be those of {self._config.name}, whose Keystone it shares")
        if config.region in (self._config.region, *(region.config.region for region in self.regions)):
            raise ConfigError(f"region: {config.region!r} is there already; give each its own name")
        if config.name == self._config.name:
            raise ConfigError(f"name: is {config.name!r} in both regions; their things would have the same ids")


def hex_id(config: CloudConfig, noun: str, name: str) -> str:
    """Keystone's ids have no dashes."""
    return config.identifier(noun, name).replace("-", "")
