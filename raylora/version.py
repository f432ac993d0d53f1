"""Apart from the package itself, which loads adapters from anywhere and so knows the cluster ring."""

__version__ = "0.1.0"
