"""Report: result files and the score table. Sees the shared nouns and the files of a run, nothing else."""

from vlmeval.report.result_files import ScoreFiles, write_predictions, write_score_files
from vlmeval.report.run_folder import DatasetStatus, link_results, scored_status, update_status
from vlmeval.report.screen import ScoredRun, print_scores
from vlmeval.report.tables import Written, evaluation_format, prediction_format

__all__ = [
    "DatasetStatus",
    "ScoreFiles",
    "ScoredRun",
    "Written",
    "evaluation_format",
    "link_results",
    "prediction_format",
    "print_scores",
    "scored_status",
    "update_status",
    "write_predictions",
    "write_score_files",
]
