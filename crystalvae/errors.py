"""Exceptions that a caller may want to catch."""


class CrystalVAEError(Exception):
    """Base of all errors that the user can mend; the CLI prints them as one line."""


class InvalidStructureError(CrystalVAEError, ValueError):
    """A structure cannot be used: broken, disordered, overlapping or unknown."""


class DataError(CrystalVAEError):
    """An input file, folder or database cannot be read."""


class ConfigError(CrystalVAEError, ValueError):
    """A configuration has an unknown key, a wrong type or an impossible value."""


class CheckpointError(CrystalVAEError):
    """A checkpoint or its device is missing, or it is truncated or too new."""


class ClusterError(CrystalVAEError):
    """A cluster's scheduler cannot be reached or used."""
