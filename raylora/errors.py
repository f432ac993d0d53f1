"""Every mistake a user can make, as an exception that survives pickling."""


class RayLoraError(Exception):
    """A mistake that the user can mend; the message says what, where and how.

    All arguments go to `Exception.__init__`, so that the error crosses process borders whole.
    """


class ConfigError(RayLoraError):
    """A key, value or combination in the config (or on the command line) that cannot be."""


class FullDiskError(ConfigError):
    """A disk that has no room for what a run writes; nothing is tried again before some is made."""


class LockError(RayLoraError):
    """A job that does not hold its run folder any more; nothing that it could write there is tried again."""


class DataError(RayLoraError):
    """A file, row or label that cannot be used."""


class EmptyFileError(DataError):
    """A file without rows: nothing is wrong with it beside files that have some."""


class ModelError(RayLoraError):
    """A base model or adapter that cannot be found, read or fitted to the config."""


class HubError(RayLoraError):
    """A hub that cannot be reached, or refuses what is uploaded."""


class ClusterError(RayLoraError):
    """A Ray cluster that cannot be reached or can never run the job."""


class UnknownAdapterError(RayLoraError):
    """An adapter's name that an endpoint does not know."""


class TooLargeError(RayLoraError):
    """A request beyond a limit of `serve`."""


class MediaTypeError(RayLoraError):
    """A request's body in a form that the endpoint does not read."""


class KeyMissingError(RayLoraError):
    """A request without the API key that it needs."""


class NotReadyError(RayLoraError):
    """Something an endpoint needs is not there at this moment."""


class OverloadError(RayLoraError):
    """More work than may wait; later it can be taken."""


class TrainingError(Exception):
    """A run that started and could not finish; the message gives the reason."""


class DivergedError(TrainingError):
    """A run that ends so however often it is tried: its config must change."""


class GateError(Exception):
    """A result that is not what was asked for; the message says by how much. A command ends with exit code 3."""
