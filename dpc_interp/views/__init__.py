"""Interactive views of an instance and of a study, in a notebook or in an HTML file of their own."""
