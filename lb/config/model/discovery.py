"""Where a pool's targets are found, besides the ones that the file names."""

from __future__ import annotations

from lb.config.model.fields import FilePath
from lb.config.model.section import Section


class Discover(Section):
    """A source of targets. What it names is probed as any target, and gets requests after its first passed check. A
    source that does not answer changes nothing."""

    file: FilePath | None = None
    """A file, or a directory of files, that holds what `targets` does: a list, or a mapping with `targets`, in YAML or
    JSON. It is read again when it changes. Replace it by a rename."""

    def given(self) -> list[str]:
        """The sources that are given: one, or the configuration is wrong."""
        return [name for name in type(self).model_fields if getattr(self, name) is not None]

    def kind(self) -> str:
        """The provider's name."""
        return self.given()[0]

    def title(self) -> str:
        """The source, for people."""
        return f"file {self.file}"
