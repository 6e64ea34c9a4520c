"""The adapters: values in, values out. One folder per provider, the same file names in each."""
