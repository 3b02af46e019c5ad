"""What a study has shown, from its folder: numbers, tables, figures, one page. No torch, no Optuna."""
