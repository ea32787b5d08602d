"""Which provider reads which settings."""

from __future__ import annotations

from pathlib import Path

from lb.config.model.discovery import Discover
from lb.discovery.source import Source


def source_of(settings: Discover) -> Source:
    """The source that a pool's `discover` describes. A provider's file is imported when it is used."""
    if settings.consul is not None:
        from lb.discovery.consul import ConsulSource

        return ConsulSource(settings.consul)
    if settings.dns is not None:
        from lb.discovery.dns import DnsSource

        return DnsSource(settings.dns)
    if settings.docker is not None:
        from lb.discovery.docker import DockerSource

        return DockerSource(settings.docker)
    if settings.kubernetes is not None:
        from lb.discovery.kubernetes import KubernetesSource

        return KubernetesSource(settings.kubernetes)
    if settings.python is not None:
        from lb.discovery.python import PythonSource

        return PythonSource(settings.python)
    from lb.discovery.file import FileSource

    assert settings.file is not None  # `config.check` allows no other case
    return FileSource(Path(settings.file))
