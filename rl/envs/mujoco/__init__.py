"""Half-Cheetah and Ant."""
