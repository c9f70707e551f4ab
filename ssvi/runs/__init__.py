"""What a run is and where it lies: options, specs, config, the files of a run folder. Standard library alone."""
