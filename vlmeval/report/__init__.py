"""Report: result files and the score table. Sees the shared nouns and the files of a run, nothing else."""
