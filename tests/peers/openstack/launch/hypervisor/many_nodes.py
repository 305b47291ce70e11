"""Nova's own fake hypervisor, as several compute nodes of one service, one of them with GPUs."""

from typing import Any

from nova.virt import fake  # type: ignore[import-not-found] # Debian's, not in the project's environment

# Zed reads the allocations of every server of a node at each build on it, so a node should hold few servers.
PLAIN_NODES = 10
GPU_NODE = "gpu1"
GPUS = {"total": 16, "reserved": 0, "min_unit": 1, "max_unit": 8, "step_size": 1, "allocation_ratio": 1.0}


class ManyNodes(fake.FakeDriver):  # type: ignore[misc] # Nova has no types
    """Nodes fake1-00 to fake1-09, and gpu1."""

    def init_host(self, host: str) -> None:
        """Name the nodes; Nova calls it once, before it asks for them."""
        super().init_host(host)
        self._set_nodes([*(f"{host}-{number:02d}" for number in range(PLAIN_NODES)), GPU_NODE])

    def update_provider_tree(self, provider_tree: Any, nodename: str, allocations: Any = None) -> None:
        """Say what a node offers in Placement; GPUs are a resource class of their own.

        Nova's provider.yaml cannot say it: Zed takes the file for wrong when one service has several nodes.
        """
        super().update_provider_tree(provider_tree, nodename, allocations)
        if nodename == GPU_NODE:
            inventory = provider_tree.data(nodename).inventory
            provider_tree.update_inventory(nodename, inventory | {"CUSTOM_GPU_A100": GPUS})
            provider_tree.add_traits(nodename, "CUSTOM_GPU_NVIDIA_A100")
