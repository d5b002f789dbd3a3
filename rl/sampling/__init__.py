"""Episodes: tasks are sampled and adapted to in worker processes."""
