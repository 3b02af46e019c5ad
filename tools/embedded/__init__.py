"""What generates the embedded rows and the embedded backbone of the package.

``rebuild`` trains the backbone on the corpus, and ``write_rows`` writes the rows. Both speak about one small world
(``world``, ``world_tables``). Everything is seeded, so every call gives the same rows and the same corpus.
"""
