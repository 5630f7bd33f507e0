"""Measurements around training: where its time goes."""
