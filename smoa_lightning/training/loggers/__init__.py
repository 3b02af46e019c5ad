"""What each logger of a run gets: settings, final metrics, tables, pictures, and the place of the run in a study."""
