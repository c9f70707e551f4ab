"""What is asked of the computer: file systems, processes, devices. Standard library alone."""
