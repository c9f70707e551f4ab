"""A trained network outside its pipeline: predictions of images, evaluation elsewhere, files that others can use."""
