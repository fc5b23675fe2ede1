"""How the bundled reasoner is made: its documents, its training, its prompts and its model card."""
