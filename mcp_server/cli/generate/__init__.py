"""Files that are generated from the declarations of tools, resources and prompts."""
