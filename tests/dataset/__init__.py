"""A package, so that these helpers and this conftest have names of their own."""
