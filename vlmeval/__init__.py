"""vlmeval: evaluate any vision-language model on whatever cards a machine has.

Importing the package does nothing: no environment changes, no network, no torch.
"""

__version__ = "0.1.0"
