"""From finished run folders to tidy frames, tables, figures and an MLflow mirror; never imports torch."""
