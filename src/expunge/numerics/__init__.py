"""Pure functions on arrays. Imports nothing of the package but `core`."""
