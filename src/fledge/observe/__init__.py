"""Who listens to a run: the console and the trackers. They get events, never the trainer."""
