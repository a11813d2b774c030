"""The command line: `main` (the app, errors to exit codes), one file a verb; torch is imported inside the verbs."""
