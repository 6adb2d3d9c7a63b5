"""What can be run and how: the registry `supported_VLM`, config files, and the checked settings of one run.

Importing this imports neither torch nor transformers, so that a typo is answered at once.

model_spec.py   a named model: a class and its arguments
supported.py    the registry
resolving.py    a name, a folder or a hub id -> such a model
config_file.py  --config files
run_config.py   the settings of one run
"""

from vlmeval.config.config_file import ConfigFile, read_config_datasets, read_config_file
from vlmeval.config.model_spec import MODEL_CLASSES, ModelSpec, load_model_class
from vlmeval.config.resolving import MODEL_TYPE_CLASSES, resolve_model
from vlmeval.config.run_config import RunConfig
from vlmeval.config.supported import DEMO_FOLDER, supported_VLM

__all__ = [
    "DEMO_FOLDER",
    "MODEL_CLASSES",
    "MODEL_TYPE_CLASSES",
    "ConfigFile",
    "ModelSpec",
    "RunConfig",
    "load_model_class",
    "read_config_datasets",
    "read_config_file",
    "resolve_model",
    "supported_VLM",
]
