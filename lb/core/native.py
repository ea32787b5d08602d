"""A class's hint to the compiler (docs/architecture.md, "A compiled core"); without a compiler it does nothing.

`mypyc_attr` comes from mypy_extensions when mypy or mypyc reads this. At run time nothing is imported. A compiled
module has no use for the decorator any more, and in an interpreted one it leaves the class as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**options: Any) -> Any:
        """With `allow_interpreted_subclasses` a class that is compiled can be the base of one that is not."""
        return lambda cls: cls
