"""Test sets: labelled questions that measure models and that corpora are cleaned of, read out of published wheels."""
