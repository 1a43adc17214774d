"""How much each tenant may have, and how much it had."""
