"""Pure decisions: which drafter drafts how many tokens, on numpy alone, without I/O or a clock."""
