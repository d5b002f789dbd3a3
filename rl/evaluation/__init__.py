"""Adaptation measured, and what runs and evaluations leave behind read again."""
