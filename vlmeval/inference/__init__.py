"""Running: which samples are left, answering them, and the journal that loses nothing."""
