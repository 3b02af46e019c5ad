"""From a run to a folder that other programs load: a merged model, an adapter or a LoRA, with a fidelity report."""
