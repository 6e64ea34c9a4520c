"""The adapters: values in, values out. One folder per provider, with the same file names in each."""
