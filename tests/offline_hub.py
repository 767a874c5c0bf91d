"""A stand-in for huggingface_hub, whose repositories are folders."""


class OfflineHub:
    """Takes the place of the module; ``repositories`` are folders by ``OWNER/NAME``."""

    def __init__(self, repositories):
        self.repositories = repositories

    def snapshot_download(self, repository, *, allow_patterns):
        assert {"model.json", "model/parameters.safetensors"} < set(allow_patterns)
        if repository not in self.repositories:
            raise OSError("404 Client Error.\nRepository Not Found")
        return str(self.repositories[repository])
