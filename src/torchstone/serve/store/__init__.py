"""What the server remembers, in SQLite or PostgreSQL: predictions, the labels that came later, rollouts, decisions."""
