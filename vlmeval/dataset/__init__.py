"""Benchmarks: TSV files opened without holding them in memory, their prompts, and their scores."""

from vlmeval.dataset.base import Dataset, default_data_root
from vlmeval.dataset.known import DatasetSpec, supported_datasets
from vlmeval.dataset.registry import (
    DatasetListing,
    DatasetPlan,
    dataset_from_config,
    dataset_names,
    list_datasets,
    open_dataset,
    resolve_config,
    resolve_dataset,
)

__all__ = [
    "Dataset",
    "DatasetListing",
    "DatasetPlan",
    "DatasetSpec",
    "dataset_from_config",
    "dataset_names",
    "default_data_root",
    "list_datasets",
    "open_dataset",
    "resolve_config",
    "resolve_dataset",
    "supported_datasets",
]
