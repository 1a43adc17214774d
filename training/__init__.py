"""Offline jobs: text of the target itself, drafters made from it, and how good they are."""
