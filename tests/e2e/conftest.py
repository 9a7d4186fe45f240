from tests.support.api_fixtures import consortium, scene

__all__ = ["consortium", "scene"]
