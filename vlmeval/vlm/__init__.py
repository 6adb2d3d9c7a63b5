"""The models. A module here imports torch only when its model is loaded."""
