"""Files that ship with LLMasOS: ready plans and configurations, by `config_path("plans/tiny.yaml")`."""

from __future__ import annotations

from common.resources import config_path

__all__ = ["config_path"]
