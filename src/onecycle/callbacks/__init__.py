"""What accompanies a run: progress, log, checkpoint, divergence, figures. None of them changes the weights."""
