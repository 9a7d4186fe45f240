"""Puts configs/ and proto/ into the wheel, inside the `llmasos` package; an editable install finds them in the checkout.

hatchling's own `force-include` would copy them into site-packages/llmasos for an editable install too, and that folder, without
an __init__.py, would stand before the checkout's package.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ShippedFiles(BuildHookInterface):
    """Called by hatchling before it builds a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            build_data["force_include"] |= {"configs": "llmasos/configs", "proto": "llmasos/proto"}
