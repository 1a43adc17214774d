"""Drafters: each guesses the tokens that the target will emit next."""
