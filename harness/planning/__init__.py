"""From names to cells: requests, sources of sets, arms and plans. Nothing is computed here."""
