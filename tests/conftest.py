"""What the tests of every folder need; what only one folder needs is in that folder's conftest."""

pytest_plugins = ["pytester"]
