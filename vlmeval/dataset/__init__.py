"""Benchmarks: TSV files opened without holding them in memory, their prompts, and their scores."""

from vlmeval.dataset.base import Dataset
from vlmeval.dataset.config_entry import resolve_config
from vlmeval.dataset.data_root import default_data_root
from vlmeval.dataset.known import DatasetSpec, supported_datasets
from vlmeval.dataset.listing import dataset_listing, dataset_names
from vlmeval.dataset.registry import DatasetPlan, open_dataset, resolve_dataset

__all__ = [
    "Dataset",
    "DatasetPlan",
    "DatasetSpec",
    "dataset_listing",
    "dataset_names",
    "default_data_root",
    "open_dataset",
    "resolve_config",
    "resolve_dataset",
    "supported_datasets",
]
