"""The loop, and what it needs: objectives, optimiser, checkpoints, measured decisions."""
