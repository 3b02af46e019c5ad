"""What every logger of a run gets: settings, final metrics, tables of predictions, pictures, and its place in a study."""
