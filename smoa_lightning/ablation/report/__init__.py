"""The report of a study, made from its folder: numbers, tables, figures and one page. Needs no torch and no Optuna."""
